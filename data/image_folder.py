"""Images in folders: one folder a subset, in it one folder a class."""

import os
from pathlib import Path

import numpy as np

from data.faults import for_all, shown
from data.image_file import readable_extensions
from data.source import Source, find_root, join_subsets
from utils.errors import UserError

LAYOUT = (
    "<root>/train/<class>/* and <root>/test/<class>/*, or <root>/{train,query,database}/<class>/*"
)


def create_source(
    data_root: str | Path | None, folder: str = "", name: str | None = None, join: bool = False
) -> Source:
    """Return the images under `data_root`/`folder`.

    Layouts, with or without a level `images/` above them:
        train/<class>/*, and perhaps test/<class>/*;
        train/<class>/*, query/<class>/*, database/<class>/* (the released long-tailed datasets);
        to either may come val/<class>/*, and open/* or open/<class>/* with images of unknown
        classes.
    Classes are the folders of train, sorted. A class may lack images in test, query or val (it
    is then never asked about) but not in database. Files are taken whose names end as one of
    Pillow's formats; hidden files and others are passed over. A link is what it points to; one
    that points nowhere is found when it is read.

    name: the dataset's name; by default that of the folder.
    join: join all but 'open' into one subset 'all', to draw queries from.

    Raises:
        UserError: no such folder or layout, no classes, an empty or unreadable class folder, a
            class folder that is a link to nowhere, class folders that differ between subsets,
            or a name that is not UTF-8.
    """
    root = find_root(data_root, folder, LAYOUT)
    dataset = name or root.resolve().name
    if "train" not in _folders(root) and "images" in _folders(root):
        root = root / "images"
    subset_names = _subset_names(root)
    class_names = _folders(root / "train")
    if not class_names:
        raise UserError(f"folder {shown(root / 'train')} holds no class folder; expected {LAYOUT}")

    image_names: list[str] = []
    labels: list[int] = []
    subsets: dict[str, np.ndarray] = {}
    files = for_all(lambda subset: _subset_files(root, subset, class_names), subset_names)
    for subset, labelled in zip(subset_names, files, strict=True):
        start = len(image_names)
        for label, found in labelled:
            image_names += found
            labels += [label] * len(found)
        subsets[subset] = np.arange(start, len(image_names))
    source = Source(
        name=dataset,
        class_names=class_names,
        image_names=image_names,
        labels=np.array(labels, dtype=np.int64),
        subsets=subsets,
        root=root,
    )
    return join_subsets(source) if join else source


def _subset_names(root: Path) -> list[str]:
    present = set(_folders(root))
    if "train" not in present:
        raise UserError(
            f"folder {shown(root)} holds no folder 'train'; expected {LAYOUT};"
            " set data_root, or the source's param folder, to the folder above it"
        )
    if present & {"query", "database"} and (
        not {"query", "database"} <= present or "test" in present
    ):
        found = ", ".join(sorted(present & {"train", "test", "query", "database"}))
        raise UserError(f"folder {shown(root)} holds {found}; expected {LAYOUT}")
    return [
        name for name in ("train", "test", "query", "database", "val", "open") if name in present
    ]


def _subset_files(root: Path, subset: str, class_names: list[str]) -> list[tuple[int, list[str]]]:
    """Return (label, image names) for each class folder of a subset."""
    present = _folders(root / subset)
    if subset == "open":
        folders = ["open", *(f"open/{name}" for name in present)]
        return [(-1, names) for names in for_all(lambda folder: _images(root, folder), folders)]
    unknown = sorted(set(present) - set(class_names))
    if unknown:
        raise UserError(
            f"class folder {shown(root / subset / unknown[0])} has no counterpart in"
            f" {shown(root / 'train')}; add it there, or move images of unknown classes to 'open'"
        )
    missing = sorted(set(class_names) - set(present))
    if subset == "database" and missing:
        raise UserError(
            f"class folder {shown(root / subset / missing[0])} is missing though"
            f" {shown(root / 'train' / missing[0])} exists; the database must hold every class"
        )

    def find(name: str) -> tuple[int, list[str]]:
        found = _images(root, f"{subset}/{name}")
        if not found:
            raise UserError(
                f"class folder {shown(root / subset / name)} holds no readable image type;"
                " add images or remove the folder"
            )
        return class_names.index(name), found

    return for_all(find, present)


def _folders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted; a link to nowhere counts as one."""
    found = [e for e in _entries(folder) if _is_folder(e) or _points_nowhere(e)]
    return _checked_names(folder, [e.name for e in found if _is_folder(e) or not _is_image(e)])


def _images(root: Path, folder: str) -> list[str]:
    found = [e.name for e in _entries(root / folder) if _is_image(e) and not _is_folder(e)]
    return [f"{folder}/{name}" for name in _checked_names(root / folder, found)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # DirEntry.is_dir raises on links that lead round in a circle.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()  # noqa: PTH112


def _points_nowhere(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110


def _is_image(entry: os.DirEntry[str]) -> bool:
    return os.path.splitext(entry.name)[1].lower() in readable_extensions()  # noqa: PTH122


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what a folder holds, by name, hidden files and folders left out."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if e.name[0] != "."), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"folder {shown(folder)} cannot be read ({error.strerror}); restore it or its rights"
        ) from error


def _checked_names(folder: Path, names: list[str]) -> list[str]:
    """Return the names, which manifests and codes keep as UTF-8."""

    def check(name: str) -> str:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"folder {shown(folder)} holds the name {os.fsencode(name)!r}, which is not UTF-8;"
                " rename it"
            ) from error
        return name

    return for_all(check, names)
