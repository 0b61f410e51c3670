"""NUS-WIDE (Chua et al., CIVR 2009) in its original layout: 269,648 images, 81 concepts."""

import os
from pathlib import Path

import numpy as np

from data.faults import for_all, shown
from data.source import Source, find_root
from data.text_lines import image_name, line_of, read_lines
from utils.errors import UserError

LABELS = "Groundtruth/AllLabels"
IMAGE_LIST = "ImageList/Imagelist.txt"
LAYOUT = f"<root>/{LABELS}/Labels_<concept>.txt, <root>/{IMAGE_LIST} and <root>/Flickr/*/*.jpg"
_PREFIX = "Labels_"


def create_source(
    data_root: str | Path | None,
    folder: str = "NUS_WIDE",
    image_folder: str = "Flickr",
    concepts: int | str = 21,
) -> Source:
    """Return the images of `data_root`/`folder` that have one of the concepts, multi-label.

    Imagelist.txt names an image a line, as `actor\\0001_2124494179.jpg` under `image_folder`;
    each Labels_<concept>.txt has, line by line, 1 where that image shows the concept, else 0.
    Images with none of the concepts are left out (195,834 of the published ones stay with 21).
    All are in the subset 'all'.

    concepts: how many of the most frequent ones over all images, which are also their order
        (equally frequent ones by name); or a file under the root with one name a line, whose
        order is kept, such as ConceptsList/Concepts81.txt.

    Raises:
        UserError: a missing file, line or image, lists of different lengths, a label other than
            0 or 1, an image listed twice, or concepts that are not there.
    """
    root = find_root(data_root, folder, LAYOUT)
    image_list = root / IMAGE_LIST
    lines = _image_lines(image_list)
    names = list(lines)
    files = _label_files(root / LABELS)
    chosen = None if isinstance(concepts, int) else _listed(root / concepts, files)
    read = for_all(lambda c: _column(files[c], image_list, len(names)), chosen or files)
    columns = dict(zip(chosen or files, read, strict=True))
    if chosen is None:
        assert isinstance(concepts, int)
        chosen = _most_frequent(columns, concepts)
    labels = np.stack([columns[concept] for concept in chosen], axis=1)
    kept = np.flatnonzero(labels.any(1))
    if not len(kept):
        raise UserError(f"no image of {shown(image_list)} has one of the {len(chosen)} concepts")
    image_root, first = root / image_folder, names[kept[0]]
    if not any(os.path.isfile(image_root / names[index]) for index in kept):  # noqa: PTH113
        raise UserError(
            f"{line_of(image_list, lines[first])}: image {shown(image_root / first)} does not"
            " exist, nor any other of the list; set image_folder, or add them"
        )
    return Source(
        name="NUS-WIDE",
        class_names=chosen,
        image_names=[names[index] for index in kept],
        labels=labels[kept].astype(np.uint8),
        subsets={"all": np.arange(len(kept))},
        root=image_root,
        places=[line_of(image_list, lines[names[index]]) for index in kept],
    )


def _image_lines(path: Path) -> dict[str, int]:
    """Return the line of each image, by name, in the order of the lines."""
    found: dict[str, int] = {}

    def note(numbered: tuple[int, str]) -> None:
        number, line = numbered
        first = found.setdefault(image_name(line), number)
        if first != number:
            raise UserError(f"{line_of(path, number)}: {line!r} stands in line {first} already")

    for_all(note, read_lines(path, "image list", LAYOUT))
    if not found:
        raise UserError(f"image list {shown(path)} is empty; expected {LAYOUT}")
    return found


def _label_files(folder: Path) -> dict[str, Path]:
    """Return the label file of each concept, by name."""
    files = {path.stem.removeprefix(_PREFIX): path for path in folder.glob(f"{_PREFIX}*.txt")}
    if not files:
        raise UserError(
            f"folder {shown(folder)} holds no {_PREFIX}<concept>.txt; expected {LAYOUT}"
        )
    return dict(sorted(files.items()))


def _listed(path: Path, files: dict[str, Path]) -> list[str]:
    chosen: list[str] = []
    for number, name in read_lines(path, "concept list", "one concept a line"):
        if name not in files:
            raise UserError(
                f"{line_of(path, number)}: no file {_PREFIX}{shown(name)}.txt of this concept"
            )
        if name in chosen:
            raise UserError(f"{line_of(path, number)}: concept {name} is listed twice")
        chosen.append(name)
    if len(chosen) < 2:
        raise UserError(f"{shown(path)} lists {len(chosen)} concepts; expected at least 2")
    return chosen


def _column(path: Path, image_list: Path, count: int) -> np.ndarray:
    """Return (n,) bool: which images show a concept."""
    quick = _plain_column(path, count)
    if quick is not None:
        return quick
    lines = read_lines(path, "label file", "0 or 1 a line")
    if len(lines) != count:
        raise UserError(
            f"label file {shown(path)} has {len(lines)} labels but {shown(image_list)} has"
            f" {count} images; expected as many"
        )

    def parse(numbered: tuple[int, str]) -> bool:
        number, word = numbered
        if word not in ("0", "1"):
            raise UserError(f"{line_of(path, number)}: label {word!r}; expected 0 or 1")
        return word == "1"

    return np.array(for_all(parse, lines))


def _plain_column(path: Path, count: int) -> np.ndarray | None:
    """Return what `_column` does where nothing is wrong: of 81 files of 270,000 lines."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    words, lines = content.split(), set(content.splitlines())
    if len(words) != count or not {line.strip() for line in lines} <= {b"0", b"1", b""}:
        return None
    return np.array(words) == b"1"


def _most_frequent(columns: dict[str, np.ndarray], count: int) -> list[str]:
    if not 2 <= count <= len(columns):
        raise UserError(f"concepts is {count}; expected 2 to {len(columns)}, or a concept list")
    # The sort is stable: equally frequent concepts stay in the order of their names.
    return sorted(columns, key=lambda concept: -int(columns[concept].sum()))[:count]
