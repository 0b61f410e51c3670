"""Images in folders: one folder a subset, in it one folder a class."""

import os
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

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
    is then never asked about) but not in database. Any format that Pillow reads is taken;
    hidden files and files of other kinds are passed over.

    name: the dataset's name; by default that of the folder.
    join: join all but 'open' into one subset 'all', to draw queries from.

    Raises:
        UserError: no such folder or layout, no classes, an empty class folder, or class folders
            that differ between subsets, or a name that is not UTF-8.
    """
    root = find_root(data_root, folder, LAYOUT)
    dataset = name or root.resolve().name
    if not (root / "train").is_dir() and (root / "images" / "train").is_dir():
        root = root / "images"
    subset_names = _subset_names(root)
    class_names = _folders(root / "train")
    if not class_names:
        raise UserError(f"folder {root / 'train'} holds no class folder; expected {LAYOUT}")

    image_names: list[str] = []
    labels: list[int] = []
    subsets: dict[str, np.ndarray] = {}
    for subset in subset_names:
        start = len(image_names)
        for label, found in _subset_files(root, subset, class_names):
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
            f"folder {root} holds no folder 'train'; expected {LAYOUT};"
            " set data_root, or the source's param folder, to the folder above it"
        )
    if present & {"query", "database"} and (
        not {"query", "database"} <= present or "test" in present
    ):
        found = ", ".join(sorted(present & {"train", "test", "query", "database"}))
        raise UserError(f"folder {root} holds {found}; expected {LAYOUT}")
    return [
        name for name in ("train", "test", "query", "database", "val", "open") if name in present
    ]


def _subset_files(root: Path, subset: str, class_names: list[str]) -> list[tuple[int, list[str]]]:
    """Return (label, image names) for each class folder of a subset."""
    if subset == "open":
        folders = ["open"] + [f"open/{name}" for name in _folders(root / "open")]
        return [(-1, _images(root, folder)) for folder in folders]
    present = _folders(root / subset)
    unknown = sorted(set(present) - set(class_names))
    if unknown:
        raise UserError(
            f"class folder {root / subset / unknown[0]} has no counterpart in {root / 'train'};"
            " add it there, or move images of unknown classes to 'open'"
        )
    missing = sorted(set(class_names) - set(present))
    if subset == "database" and missing:
        raise UserError(
            f"class folder {root / subset / missing[0]} is missing though"
            f" {root / 'train' / missing[0]} exists; the database must hold every class"
        )
    files = [(class_names.index(name), _images(root, f"{subset}/{name}")) for name in present]
    for label, found in files:
        if not found:
            raise UserError(
                f"class folder {root / subset / class_names[label]} holds no readable image type;"
                " add images or remove the folder"
            )
    return files


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    return _checked_names(folder, names)


def _checked_names(folder: Path, names: list[str]) -> list[str]:
    """Return the names, which manifests and codes keep as UTF-8."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            shown = os.fsencode(folder).decode(errors="backslashreplace")
            raise UserError(
                f"folder {shown} holds the name {os.fsencode(name)!r}, which is not UTF-8;"
                " rename it"
            ) from error
    return names


def _images(root: Path, folder: str) -> list[str]:
    with os.scandir(root / folder) as entries:
        names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_file())
    readable = _readable_extensions()
    names = [name for name in names if os.path.splitext(name)[1].lower() in readable]  # noqa: PTH122
    return [f"{folder}/{name}" for name in _checked_names(root / folder, names)]


@cache
def _readable_extensions() -> frozenset[str]:
    extensions = Image.registered_extensions()
    return frozenset(extension for extension, kind in extensions.items() if kind in Image.OPEN)
