"""NUS-WIDE (Chua et al., CIVR 2009) in its original layout: 269,648 images, 81 concepts."""

from pathlib import Path

import numpy as np

from data.source import Source, find_root
from data.text_lines import image_name, read_lines
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
    names = _image_names(root / IMAGE_LIST)
    files = _label_files(root / LABELS)
    chosen = None if isinstance(concepts, int) else _listed(root / concepts, files)
    columns = {c: _column(files[c], root / IMAGE_LIST, len(names)) for c in chosen or files}
    if chosen is None:
        assert isinstance(concepts, int)
        chosen = _most_frequent(columns, concepts)
    labels = np.stack([columns[concept] for concept in chosen], axis=1)
    kept = np.flatnonzero(labels.any(1))
    if not len(kept):
        raise UserError(f"no image of {root / IMAGE_LIST} has one of the {len(chosen)} concepts")
    image_root, first = root / image_folder, names[kept[0]]
    if not (image_root / first).is_file():
        raise UserError(f"image {image_root / first} does not exist; set image_folder, or add it")
    return Source(
        name="NUS-WIDE",
        class_names=chosen,
        image_names=[names[index] for index in kept],
        labels=labels[kept].astype(np.uint8),
        subsets={"all": np.arange(len(kept))},
        root=image_root,
    )


def _image_names(path: Path) -> list[str]:
    line_of: dict[str, int] = {}
    for number, line in read_lines(path, "image list", LAYOUT):
        first = line_of.setdefault(image_name(line), number)
        if first != number:
            raise UserError(f"{path}, line {number}: {line} stands in line {first} already")
    if not line_of:
        raise UserError(f"image list {path} is empty; expected {LAYOUT}")
    return list(line_of)


def _label_files(folder: Path) -> dict[str, Path]:
    """Return the label file of each concept, by name."""
    files = {path.stem.removeprefix(_PREFIX): path for path in folder.glob(f"{_PREFIX}*.txt")}
    if not files:
        raise UserError(f"folder {folder} holds no {_PREFIX}<concept>.txt; expected {LAYOUT}")
    return dict(sorted(files.items()))


def _listed(path: Path, files: dict[str, Path]) -> list[str]:
    chosen = []
    for number, name in read_lines(path, "concept list", "one concept a line"):
        if name not in files:
            raise UserError(f"{path}, line {number}: no file {_PREFIX}{name}.txt of this concept")
        if name in chosen:
            raise UserError(f"{path}, line {number}: concept {name} is listed twice")
        chosen.append(name)
    if len(chosen) < 2:
        raise UserError(f"{path} lists {len(chosen)} concepts; expected at least 2")
    return chosen


def _column(path: Path, image_list: Path, count: int) -> np.ndarray:
    """Return (n,) bool: which images show a concept."""
    words = path.read_bytes().split()  # quick where nothing is wrong: 81 files of 270,000 lines
    if len(words) == count and set(words) <= {b"0", b"1"}:
        return np.array(words) == b"1"
    lines = read_lines(path, "label file", "0 or 1 a line")
    if len(lines) != count:
        raise UserError(
            f"label file {path} has {len(lines)} labels but {image_list} has {count} images;"
            " expected as many"
        )
    for number, word in lines:
        if word not in ("0", "1"):
            raise UserError(f"{path}, line {number}: label {word!r}; expected 0 or 1")
    return np.array([word == "1" for _, word in lines])


def _most_frequent(columns: dict[str, np.ndarray], count: int) -> list[str]:
    if not 2 <= count <= len(columns):
        raise UserError(f"concepts is {count}; expected 2 to {len(columns)}, or a concept list")
    # The sort is stable: equally frequent concepts stay in the order of their names.
    return sorted(columns, key=lambda concept: -int(columns[concept].sum()))[:count]
