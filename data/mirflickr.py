"""MIRFlickr-25K (Huiskes and Lew, MIR 2008) in its original layout: 25,000 images, 24 labels."""

import re
from pathlib import Path

import numpy as np

from data.faults import for_all, shown
from data.source import Source, find_root
from data.text_lines import line_of, read_lines
from utils.errors import UserError

LAYOUT = "<root>/mirflickr/im<number>.jpg and <root>/annotations/<label>.txt"
_RELEVANT = "_r1"  # files of the images in which a label is relevant, a part of those it is seen in


def create_source(
    data_root: str | Path | None,
    folder: str = "MIRFlickr",
    image_folder: str = "mirflickr",
    annotations: str = "annotations",
) -> Source:
    """Return the images of `data_root`/`folder`, multi-label, by their number.

    Each <label>.txt in the folder `annotations` has the numbers of the images that show the
    label, one a line. Its 24 files give the labels, by name; <label>_r1.txt (where the label is
    relevant) and README files are passed over. Images without any label stay: they are searched.
    All are in the subset 'all'.

    Raises:
        UserError: a missing folder, no images, fewer than two labels, or a line that is no number
            of an image.
    """
    root = find_root(data_root, folder, LAYOUT)
    numbers = _image_numbers(root / image_folder)
    position = {number: index for index, number in enumerate(numbers)}
    files = _label_files(root / annotations)
    labels = np.zeros((len(numbers), len(files)), dtype=np.uint8)
    labelled = for_all(lambda path: _labelled(path, position, root / image_folder), files.values())
    for c, indices in enumerate(labelled):
        labels[indices, c] = 1
    return Source(
        name="MIRFlickr-25K",
        class_names=list(files),
        image_names=[f"im{number}.jpg" for number in numbers],
        labels=labels,
        subsets={"all": np.arange(len(numbers))},
        root=root / image_folder,
    )


def _image_numbers(folder: Path) -> list[int]:
    matches = (re.fullmatch(r"im([1-9][0-9]{0,8})\.jpg", path.name) for path in _entries(folder))
    numbers = sorted(int(match[1]) for match in matches if match)
    if not numbers:
        raise UserError(f"folder {shown(folder)} holds no im<number>.jpg; expected {LAYOUT}")
    return numbers


def _label_files(folder: Path) -> dict[str, Path]:
    """Return the file of each label, by name."""
    files = {
        path.stem: path
        for path in sorted(_entries(folder))
        if path.suffix == ".txt"
        and not path.stem.endswith(_RELEVANT)
        and path.stem.lower() != "readme"
    }
    if len(files) < 2:
        raise UserError(f"folder {shown(folder)} holds {len(files)} label files; expected {LAYOUT}")
    return files


def _entries(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise UserError(
            f"folder {shown(folder)} cannot be read ({error.strerror}); expected {LAYOUT}"
        ) from error


def _labelled(path: Path, position: dict[int, int], image_folder: Path) -> list[int]:
    """Return the indices of the images that a label file lists."""

    def parse(numbered: tuple[int, str]) -> int:
        number, line = numbered
        if not re.fullmatch("[0-9]{1,9}", line):
            raise UserError(f"{line_of(path, number)}: {line!r}; expected an image number")
        if int(line) not in position:
            missing = shown(image_folder / f"im{int(line)}.jpg")
            raise UserError(f"{line_of(path, number)}: image {missing} does not exist")
        return position[int(line)]

    return for_all(parse, read_lines(path, "label file", "an image number a line"))
