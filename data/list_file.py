"""Images named by list files: `path label`, `path 0 1 0 ...`, or names and labels side by side."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.faults import for_all, shown
from data.source import Source, find_root, join_subsets
from data.text_lines import image_name, line_of, read_lines
from utils.errors import UserError

ListFile = str | Sequence[str]

LAYOUT = "list files with one image a line, 'path label' or 'path 0 1 0 ...'"
_GAPS = "classes must count from 0 without gaps, images of unknown classes belong in the open list"


@dataclass(frozen=True)
class _Row:
    """One image of a list; `labels` is a class index, or one 0 or 1 a class, or empty."""

    path: str
    labels: tuple[int, ...]
    place: str  # file and line, for messages


def create_source(
    data_root: str | Path | None,
    train: ListFile,
    test: ListFile | None = None,
    query: ListFile | None = None,
    database: ListFile | None = None,
    val: ListFile | None = None,
    open: ListFile | None = None,
    image_folder: str = "",
    class_names: str | None = None,
    name: str | None = None,
    join: bool = False,
) -> Source:
    """Return the images that list files name.

    A list is a path (relative to `data_root`, or absolute), or a pair of paths: image names and,
    line by line, their labels. The first line decides the format: one whole number after the
    image's path is its class, several are a column a label. Where every image has exactly one
    of several labels, as in HashNet's lists of ImageNet, the columns are a class each, and the
    source is single-label. Image paths are relative to `data_root`/`image_folder`; '\\' in them
    is read as '/'. An image that stands in several lists is one image, in several subsets, and
    twice in one list still one image.

    train, test or query, database, val, open: the subsets. In `open` (unknown classes) labels
        may be absent and are not used.
    class_names: a file with one name a line; by default the classes are named by number.
    join: join all but 'open' into one subset 'all', to draw queries from.

    An image that is not there is found when it is read; the line that lists it is then named.

    Raises:
        UserError: a missing file, malformed or contradicting lines (names file and line), a
            class without training images, or a list none of whose images exists.
    """
    root = find_root(data_root, "", LAYOUT)
    image_root = root / image_folder
    files = {
        "train": train,
        ("test" if database is None else "query"): _query_list(test, query, database),
        "database": database,
        "val": val,
        "open": open,
    }
    given = {subset: file for subset, file in files.items() if file is not None}
    read = for_all(
        lambda subset: _read_list(root, image_root, given[subset], unlabelled=subset == "open"),
        given,
    )
    rows = dict(zip(given, read, strict=True))
    classes = _class_names(root, class_names, rows)
    images, labels, subsets = _merge(rows, classes)
    source = Source(
        name=name or root.resolve().name,
        class_names=classes,
        image_names=[row.path for row in images],
        labels=labels,
        subsets=subsets,
        root=image_root,
        places=[row.place for row in images],
    )
    _check_classes(source, rows["train"])
    return join_subsets(source) if join else source


def _query_list(
    test: ListFile | None, query: ListFile | None, database: ListFile | None
) -> ListFile | None:
    if test is not None and query is not None:
        raise UserError("both test and query lists are given; they mean the same, give one")
    if database is not None and test is None and query is None:
        raise UserError("a database list is given without a query list; give query too")
    return test if query is None else query


def _read_list(root: Path, image_root: Path, file: ListFile, unlabelled: bool) -> list[_Row]:
    if isinstance(file, str):
        rows = _rows(_lines(root / file), root / file, unlabelled)
    else:
        rows = _paired_rows(root, file)
    if not rows:
        raise UserError(f"list file {_shown(root, file)} is empty; expected {LAYOUT}")
    if not any(os.path.isfile(image_root / row.path) for row in rows):  # noqa: PTH113
        raise UserError(
            f"{rows[0].place}: image {shown(image_root / rows[0].path)} does not exist, nor any"
            " other of the list; set image_folder to the folder that its paths start from"
        )
    return [_Row(row.path, (), row.place) for row in rows] if unlabelled else rows


def _lines(path: Path) -> list[tuple[int, str]]:
    return read_lines(path, "list file", LAYOUT)


def _rows(lines: list[tuple[int, str]], file: Path, unlabelled: bool) -> list[_Row]:
    columns = _label_columns(lines[0][1]) if lines else 0
    if lines and columns == 0 and not unlabelled:
        raise UserError(f"{line_of(file, lines[0][0])}: {lines[0][1]!r} has no label; {LAYOUT}")

    def parse(numbered: tuple[int, str]) -> _Row:
        number, line = numbered
        place = line_of(file, number)
        path, *labels = line.rsplit(None, columns) if columns else [line]
        if len(labels) != columns:
            raise UserError(
                f"{place}: {len(labels)} labels where the first line has {columns}: {line!r}"
            )
        return _Row(image_name(path), _numbers(labels, place), place)

    return for_all(parse, lines)


def _paired_rows(root: Path, files: Sequence[str]) -> list[_Row]:
    if len(files) != 2:
        raise UserError(f"{len(files)} list files {list(files)}; expected a pair: names, labels")
    names, labels = (_lines(root / file) for file in files)
    if len(names) != len(labels):
        raise UserError(
            f"list file {shown(root / files[0])} has {len(names)} images but"
            f" {shown(root / files[1])} has {len(labels)} lines of labels; expected as many"
        )

    def parse(pair: tuple[tuple[int, str], tuple[int, str]]) -> _Row:
        (_, path), (number, line) = pair
        place = line_of(root / files[1], number)
        return _Row(image_name(path), _numbers(line.split(), place), place)

    return for_all(parse, zip(names, labels, strict=True))


def _label_columns(line: str) -> int:
    """Return how many whole numbers end the line, the path not counted."""
    columns = 0
    for word in reversed(line.split()[1:]):
        if not word.removeprefix("-").isdecimal():
            break
        columns += 1
    return columns


def _numbers(words: Sequence[str], place: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(word) for word in words)
    except ValueError as error:
        raise UserError(f"{place}: labels {' '.join(words)!r} are not whole numbers") from error
    if len(numbers) == 1 and numbers[0] < 0:
        raise UserError(f"{place}: class {numbers[0]} is negative; classes count from 0")
    if len(numbers) > 1 and not set(numbers) <= {0, 1}:
        raise UserError(f"{place}: one column a label must hold 0 or 1, not {' '.join(words)!r}")
    return numbers


def _class_names(root: Path, file: str | None, rows: dict[str, list[_Row]]) -> list[str]:
    labelled = [row for subset, some in rows.items() if subset != "open" for row in some]
    columns = len(labelled[0].labels)
    for row in labelled:
        if len(row.labels) != columns:
            raise UserError(
                f"{row.place}: {len(row.labels)} labels where {labelled[0].place} has {columns};"
                " all lists must have one format"
            )
    largest = max(labelled, key=lambda row: row.labels[0])
    count = columns if columns > 1 else largest.labels[0] + 1
    if file is None:
        if columns == 1 and count > len(labelled):  # perhaps by far
            used = {row.labels[0] for row in rows["train"]}
            gap = next(c for c in range(count) if c not in used)
            raise UserError(
                f"{largest.place}: class {count - 1}, but class '{gap}' has no training image in"
                f" {_file(rows['train'])}; {_GAPS}"
            )
        return [str(c) for c in range(count)]
    names = _listed_names(root / file)
    if len(names) < count or (columns > 1 and len(names) != count):
        raise UserError(
            f"class names file {shown(root / file)} has {len(names)} names but the lists"
            f" (see {largest.place}) have {count} classes; expected one name a line"
        )
    return names


def _listed_names(file: Path) -> list[str]:
    first: dict[str, int] = {}
    for number, name in _lines(file):
        if first.setdefault(name, number) != number:
            raise UserError(
                f"{line_of(file, number)}: class {name!r} stands in line {first[name]} already"
            )
    return list(first)


def _merge(
    rows: dict[str, list[_Row]], class_names: list[str]
) -> tuple[list[_Row], np.ndarray, dict[str, np.ndarray]]:
    """Return the first row, and the labels, of each image, and the subsets; a path is an image."""
    index_of: dict[str, int] = {}
    images: list[_Row] = []

    def find(row: _Row) -> int:
        index = index_of.setdefault(row.path, len(images))
        if index == len(images):
            images.append(row)
        elif images[index].labels != row.labels:
            raise UserError(
                f"{row.place}: {shown(row.path)} has other labels than in {images[index].place}"
            )
        return index

    found = for_all(lambda subset: for_all(find, rows[subset]), rows)
    subsets = {
        subset: np.unique(np.array(indices, dtype=np.int64))
        for subset, indices in zip(rows, found, strict=True)
    }
    return images, _labels(images, len(class_names)), subsets


def _labels(rows: list[_Row], num_classes: int) -> np.ndarray:
    if any(len(row.labels) > 1 for row in rows):
        unknown = (0,) * num_classes
        columns = np.array([row.labels or unknown for row in rows], dtype=np.uint8)
        known = np.array([bool(row.labels) for row in rows])
        one_hot = (columns[known].sum(1) == 1).all()
        return np.where(known, columns.argmax(1), -1) if one_hot else columns
    return np.array([row.labels[0] if row.labels else -1 for row in rows], dtype=np.int64)


def _check_classes(source: Source, train: list[_Row]) -> None:
    empty = np.flatnonzero(source.class_counts(source.subsets["train"]) == 0)
    if len(empty) and not source.multi_label:
        raise UserError(
            f"class {source.class_names[empty[0]]!r} has no training image in {_file(train)};"
            f" {_GAPS}"
        )


def _file(rows: list[_Row]) -> str:
    return rows[0].place.rpartition(", line ")[0]


def _shown(root: Path, file: ListFile) -> str:
    return shown(root / (file if isinstance(file, str) else file[0]))
