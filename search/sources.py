"""What an index is built from: codes of a file, a run or a cluster job, or images and a model."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.image_file import image_size
from retrieval.codes import Codes, load_codes
from retrieval.image_codes import load_image_codes
from search.cluster_output import is_output, open_output, packed_codes
from search.rows import make_rows
from search.store import Coding, Packed
from utils.cores import available_cores
from utils.errors import UserError

CODES = "codes.npz"  # of a run's folder
SPLITS = ("train", "val", "validation", "test", "query", "database")
_FIELDS_OF_IMAGES = "names"  # an archive of engine.encode holds it, a run's does not


@dataclass(frozen=True)
class Batch:
    """Packed codes (n, bytes) and their rows."""

    codes: Packed
    rows: pa.Table


def holds_codes(place: str) -> bool:
    """Whether codes are there: a file of them, a run's folder, or a cluster job's output."""
    path = Path(place)
    return is_output(place) or path.suffix == ".npz" or (path / CODES).is_file()


def read_batches(place: str, image_root: str = "") -> tuple[Coding, Iterator[Batch]]:
    """Codes batch by batch, since those of a cluster job need not fit into memory.

    Args:
        image_root: the folder that the images' names are relative to.

    Raises:
        UserError: there are none, or they are damaged.
    """
    if not is_output(place):
        coding, batch = read_source(Path(place), image_root)
        return coding, iter([batch])
    output = open_output(place)
    stated = output.stated()
    if stated is None:
        raise UserError(f"{place}: no codes there; write them with python -m search.cluster")
    coding = stated.coding
    if image_root:
        coding = replace(coding, image_root=str(Path(image_root).resolve()))
    return coding, (Batch(packed_codes(table), table) for table in output.tables())


def read_source(place: Path, image_root: str = "") -> tuple[Coding, Batch]:
    """The codes in a run's folder or in a codes.npz of a run or of engine.encode.

    Args:
        image_root: the folder that the images' names are relative to, for their sizes.

    Raises:
        UserError: there are none, or they are damaged.
    """
    file = place / CODES if place.is_dir() else place
    if not file.is_file():
        raise UserError(
            f"{place}: no {CODES} there; give one, a run's folder, or images with --checkpoint"
        )
    root = str(Path(image_root).resolve()) if image_root else ""
    if _has_names(file):
        found = load_image_codes(file)
        coding = Coding(found.code_length, found.model_digest, image_root=root)
        return coding, Batch(found.codes, image_rows(found.names.tolist(), root))
    return _run_source(load_codes(file), root)


def image_rows(names: Sequence[str], root: str) -> pa.Table:
    """Rows of image files; labels and splits are those that the folders' names tell.

    Of 'train/cat/1.jpg' the split is train and the label cat; of 'cat/1.jpg' there is no split.
    """
    parts = [name.replace(os.sep, "/").split("/") for name in names]
    splits = [each[0] if len(each) > 1 and each[0] in SPLITS else None for each in parts]
    labels = [
        each[-2] if len(each) > 1 + (split is not None) else None
        for each, split in zip(parts, splits, strict=True)
    ]
    return make_rows(len(names), path=names, label=labels, split=splits, **image_sizes(names, root))


def image_sizes(names: Sequence[str], root: str) -> dict[str, list[int | None]]:
    """Width and height of image files, None of what cannot be read."""
    if not root:
        return {}

    def size(name: str) -> tuple[int | None, int | None]:
        try:
            return image_size(Path(root, name))
        except UserError:
            return None, None

    with ThreadPoolExecutor(available_cores()) as pool:
        sizes = list(pool.map(size, names))
    return {"width": [each[0] for each in sizes], "height": [each[1] for each in sizes]}


def _run_source(codes: Codes, root: str) -> tuple[Coding, Batch]:
    """Database and query images of a run, in this order."""
    sides = []
    for side in ("database", "query"):
        packed, labels = getattr(codes, f"{side}_codes"), getattr(codes, f"{side}_labels")
        names = getattr(codes, f"{side}_names")
        given = {} if names is None else {"path": names.tolist()}
        given |= image_sizes(names.tolist(), root) if names is not None else {}
        texts = label_texts(labels, codes.class_names)
        sides.append(Batch(packed, make_rows(len(packed), **given, label=texts,
                                             split=[side] * len(packed))))  # fmt: skip
    counts, names = codes.train_class_counts, codes.class_names
    coding = Coding(
        codes.code_length,
        image_root=root,
        class_names=() if names is None else tuple(names.tolist()),
        class_counts=() if counts is None else tuple(counts.tolist()),
    )
    whole = np.concatenate([side.codes for side in sides])
    return coding, Batch(whole, pa.concat_tables([side.rows for side in sides]))


def label_texts(labels: NDArray[np.generic], class_names: NDArray[np.str_] | None) -> list[str]:
    """Names of the images' classes, else their numbers; several are joined by ';'."""
    if labels.ndim == 1:
        numbers = [[int(label)] for label in labels]
    else:
        numbers = [np.flatnonzero(row).tolist() for row in labels]
    if class_names is None:
        return [";".join(map(str, each)) for each in numbers]
    names = class_names.tolist()
    return [";".join(names[number] for number in each if number >= 0) for each in numbers]


def _has_names(file: Path) -> bool:
    try:
        with np.load(file, allow_pickle=False) as archive:
            return _FIELDS_OF_IMAGES in archive.files
    except Exception as error:  # numpy and zipfile raise many kinds for a broken archive
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{file}: no archive of codes ({reason})") from None
