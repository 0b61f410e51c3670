"""Anybody's codes: npz, a folder of npy or csv files, MATLAB, or one csv table, as `Codes`."""

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.codes import Codes, binarize, load_codes, make_codes
from utils.errors import UserError
from utils.matlab_file import load_matlab

Values = np.ndarray[Any, np.dtype[Any]]

# The project's names first, then those that published code saves under; case does not matter.
ALIASES = {
    "query_codes": ("query_codes", "query_code", "qb", "tst_binary", "query_b", "b_tst"),
    "database_codes": (
        "database_codes", "database_code", "rb", "db", "trn_binary", "retrieval_b",
        "database_b", "b_trn", "b_db",
    ),
    "query_labels": (
        "query_labels", "query_label", "ql", "query_l", "tst_label", "query_targets", "testgnd",
    ),
    "database_labels": (
        "database_labels", "database_label", "rl", "retrieval_l", "database_l", "trn_label",
        "retrieval_targets", "traingnd",
    ),
    "query_names": ("query_names",),
    "database_names": ("database_names",),
    "class_names": ("class_names",),
    "train_class_counts": ("train_class_counts",),
    "code_length": ("code_length",),
}  # fmt: skip
REQUIRED = ("query_codes", "database_codes", "query_labels", "database_labels")


def read_codes(path: str | os.PathLike[str]) -> Codes:
    """Read codes in any of the formats that docs/evaluation.md describes.

    Codes may be ±1, 0/1, real numbers (their signs are taken) or packed uint8 with `code_length`.

    Raises:
        UserError: the file is missing or of no known format, or lacks codes or labels.
    """
    source = Path(path)
    if not source.exists():
        raise UserError(f"{source}: no such file or folder; give codes.npz, a .mat, a .csv, "
                        "or a folder of .npy or .csv files")  # fmt: skip
    if source.is_dir():
        found = _read_folder(source)
    elif source.suffix == ".npz":
        try:
            return load_codes(source)
        except UserError:  # someone else's archive, unless it is no archive at all
            found = _read_npz(source)
    elif source.suffix == ".mat":
        found = _read_matlab(source)
    elif source.suffix == ".csv":
        found = _read_table(source)
    else:
        raise UserError(f"{source}: unknown format {source.suffix!r}, expected .npz, .mat, .csv "
                        "or a folder of .npy or .csv files")  # fmt: skip
    return foreign_codes(found, str(source))


def foreign_codes(found: dict[str, Any], where: str) -> Codes:
    """`Codes` from arrays under anybody's names.

    Raises:
        UserError: codes or labels are missing, or do not fit together.
    """
    lower = {name.lower(): value for name, value in found.items()}
    values: dict[str, Any] = {}
    for field, aliases in ALIASES.items():
        match = next((alias for alias in aliases if alias in lower), None)
        if match is not None:
            values[field] = lower[match]
    missing = [field for field in REQUIRED if field not in values]
    if missing:
        raise UserError(
            f"{where}: found {', '.join(sorted(found)) or 'nothing'}, but no {missing[0]}; "
            "docs/evaluation.md lists the names that are understood"
        )
    try:
        for side in ("query", "database"):
            values[f"{side}_codes"] = _signs(values[f"{side}_codes"], "code_length" in values)
            count = len(values[f"{side}_codes"])
            values[f"{side}_labels"] = _labels(values[f"{side}_labels"], count)
        return make_codes(**values)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _signs(codes: Any, packed: bool) -> Any:
    array = np.asarray(codes)
    if packed and array.dtype == np.uint8:
        return array
    if array.ndim != 2:
        raise UserError(f"codes have shape {array.shape}, expected (images, bits)")
    if array.dtype.kind not in "biuf":
        raise UserError(f"codes are of type {array.dtype}, expected numbers")
    if array.dtype == bool or (array.size and array.min() == 0 and np.isin(array, (0, 1)).all()):
        return array.astype(np.int8) * 2 - 1
    if array.dtype.kind == "u" and array.size and array.max() > 1:
        raise UserError("packed codes came without code_length; store it beside them")
    return binarize(array)


def _labels(labels: Any, count: int) -> Any:
    """Labels of `count` images; a vector that came as a matrix, as MATLAB's do, is flattened."""
    array = np.asarray(labels)
    if array.dtype.kind not in "biuf":
        raise UserError(f"labels are of type {array.dtype}, expected numbers")
    is_row = array.shape == (1, count)  # else (1, C): the one-hot row of a single query
    is_column = array.ndim == 2 and array.shape[1] == 1 and bool((array > 0).any())
    if is_row or is_column:
        array = array.reshape(-1)
    if array.dtype.kind == "f" and (array == np.floor(array)).all():
        array = array.astype(np.int64)
    return array


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # numpy and zipfile raise many kinds for a broken archive
        raise UserError(f"{path}: not a readable npz archive ({_one_line(error)})") from None


def _read_folder(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        try:
            if path.suffix == ".npy":
                found[path.stem] = np.load(path, allow_pickle=False)
            elif path.suffix == ".csv":
                found[path.stem] = _matrix(path)
        except (ValueError, OSError, EOFError, SyntaxError) as error:
            raise UserError(f"{path}: not readable ({_one_line(error)})") from None
    return found


def _matrix(path: Path) -> Values:
    if path.stem.lower().endswith("names"):
        return np.array(path.read_text(encoding="utf-8").splitlines(), dtype=np.str_)
    matrix = np.loadtxt(path, delimiter=",", ndmin=2)
    is_vector = matrix.shape[1] == 1 and not path.stem.lower().endswith(("codes", "binary", "b"))
    return matrix[:, 0] if is_vector else matrix


def _read_matlab(path: Path) -> dict[str, Any]:
    try:
        stored = load_matlab(path)
    except NotImplementedError:
        raise UserError(f"{path}: a MATLAB 7.3 file; save it with -v7") from None
    except Exception as error:  # scipy raises many kinds for a broken file
        raise UserError(f"{path}: not a readable MATLAB file ({_one_line(error)})") from None
    return {name: value for name, value in stored.items() if not name.startswith("__")}


def _read_table(path: Path) -> dict[str, Any]:
    """One row an image: `set` (query or database), `label` (3, or 3;7), `code` (0101…), `name`."""
    rows = _table_rows(path)
    width = 1 + max(_classes(path, row)[-1] for row in rows)
    multi = any(";" in row["label"] for row in rows)
    found: dict[str, Any] = {}
    for side in ("query", "database"):
        mine = [row for row in rows if row["set"] == side]
        if not mine:
            raise UserError(f"{path}: it has no row of set {side!r}, expected query and database")
        if len({len(row["code"]) for row in mine}) > 1 or any(
            set(row["code"]) - {"0", "1"} for row in mine
        ):
            raise UserError(f"{path}: {side} codes must be 0s and 1s, all of one length")
        found[f"{side}_codes"] = np.array([list(row["code"]) for row in mine]).astype(np.int8) == 1
        labels = [_classes(path, row) for row in mine]
        if multi:
            hot = np.zeros((len(mine), width), dtype=bool)
            for index, classes in enumerate(labels):
                hot[index, classes] = True
            found[f"{side}_labels"] = hot
        else:
            found[f"{side}_labels"] = np.array([classes[0] for classes in labels], dtype=np.int64)
        if "name" in rows[0]:
            found[f"{side}_names"] = np.array([row["name"] for row in mine])
    return found


def _table_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            table = csv.reader(stream)
            columns = next(table, [])
            numbered = [(table.line_num, row) for row in table if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not readable ({_one_line(error)}); save it as UTF-8") from None
    if not {"set", "label", "code"} <= set(columns) or not numbered:
        raise UserError(
            f"{path}: its columns are {', '.join(columns) or 'none'}, its rows {len(numbered)}; "
            "expected set,label,code and perhaps name, and one row an image"
        )
    for number, row in numbered:
        if len(row) != len(columns):
            raise UserError(
                f"{path}: line {number} has {len(row)} values, expected {len(columns)}, "
                f"one for each of {','.join(columns)}"
            )
    return [dict(zip(columns, row, strict=True)) for _, row in numbered]


def _classes(path: Path, row: dict[str, str]) -> list[int]:
    parts = row["label"].split(";")
    if not all(part.strip().isdecimal() for part in parts):
        raise UserError(f"{path}: label {row['label']!r}, expected 3, or 3;7 for several")
    return sorted(int(part) for part in parts)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
