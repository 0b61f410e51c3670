"""Binary codes: the sign, packed bits, and the file that holds a run's codes.

A code of q bits is a row of -1 and +1. Packed, bit i of a code is bit i % 8 (the least significant
first) of byte i // 8, and +1 is a set bit: the order that FAISS's binary indexes read.
"""

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.atomic_file import atomic_path
from utils.errors import UserError

Array = np.ndarray[Any, np.dtype[Any]] | Tensor

PACK_ROWS = 1 << 18  # rows packed at a time: bounds the working memory, not the result


def binarize(x: Array) -> Array:
    """Sign of `x` as int8, with sgn(0) = +1; a tensor gives a tensor, an array an array.

    Raises:
        UserError: a value is NaN, which has no sign.
    """
    if isinstance(x, Tensor):
        if torch.isnan(x).any():
            raise UserError(nan_message(int(torch.isnan(x).sum()), x.shape))
        return torch.where(x >= 0, 1, -1).to(torch.int8)
    x = np.asarray(x)
    if np.isnan(x).any():
        raise UserError(nan_message(int(np.isnan(x).sum()), x.shape))
    return np.where(x >= 0, 1, -1).astype(np.int8)


def pack(codes: Array) -> Array:
    """Pack codes of -1 and +1, shape (n, q), into uint8 (n, ceil(q / 8)), +1 being a set bit.

    Raises:
        UserError: the codes are not (n, q) with q at least 1, or hold another value than -1, +1.
    """
    packed = packed_tensor(as_tensor(codes))
    return packed if isinstance(codes, Tensor) else packed.numpy()


def unpack(packed: Array, code_length: int) -> Array:
    """Unpack uint8 (n, ceil(code_length / 8)) into int8 codes of -1 and +1, (n, code_length).

    Raises:
        UserError: the width does not fit `code_length`, or a bit past it is set.
    """
    bits = as_tensor(packed)
    check_packed(bits, code_length)
    shifts = torch.arange(8, dtype=torch.uint8, device=bits.device)
    bits = (bits[:, :, None] >> shifts & 1).reshape(len(bits), -1)[:, :code_length]
    codes = bits.to(torch.int8) * 2 - 1
    return codes if isinstance(packed, Tensor) else codes.numpy()


def code_words(codes: Array, code_length: int | None, device: torch.device) -> tuple[Tensor, int]:
    """Codes as 64-bit words: int64 (n, ceil(q / 64)) on `device`, padded with zero bits, and q.

    `codes` are -1 and +1, (n, q), or packed uint8 together with their `code_length`.

    Raises:
        UserError: the codes are neither, or are empty.
    """
    tensor = as_tensor(codes).to(device)
    if tensor.dtype == torch.uint8:
        if code_length is None:
            raise UserError(
                "packed uint8 codes came without code_length; give the number of bits of a code"
            )
        check_packed(tensor, code_length)
    else:
        tensor = packed_tensor(tensor)
        if code_length is not None and codes.shape[1] != code_length:
            raise UserError(
                f"codes of {codes.shape[1]} bits came with code_length={code_length}; "
                "leave code_length out, or give the codes' own"
            )
        code_length = codes.shape[1]
    return as_words(tensor), code_length


def as_tensor(values: Array) -> Tensor:
    """The array or tensor as a tensor, without a copy where that is possible."""
    if isinstance(values, Tensor):
        return values.detach()
    array = np.ascontiguousarray(values)
    if array.dtype.kind not in "biuf":
        raise UserError(f"got an array of type {array.dtype}, expected numbers")
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def packed_tensor(codes: Tensor) -> Tensor:
    """`pack` for a tensor."""
    if codes.ndim != 2 or codes.shape[1] == 0:
        raise UserError(f"codes have shape {tuple(codes.shape)}, expected (images, bits)")
    for start in range(0, len(codes), PACK_ROWS):
        check_signs(codes[start : start + PACK_ROWS])
    return pack_bits(codes)


def pack_bits(values: Tensor) -> Tensor:
    """Rows of numbers (n, q) as uint8 (n, ceil(q / 8)): a bit is set where a number is positive."""
    width = -(-values.shape[1] // 8)
    packed = torch.empty(len(values), width, dtype=torch.uint8, device=values.device)
    weights = 1 << torch.arange(8, dtype=torch.uint8, device=values.device)
    for start in range(0, len(values), PACK_ROWS):
        bits = (values[start : start + PACK_ROWS] > 0).to(torch.uint8)
        bits = torch.nn.functional.pad(bits, (0, 8 * width - values.shape[1])).view(-1, width, 8)
        packed[start : start + PACK_ROWS] = (bits * weights).sum(-1, dtype=torch.uint8)
    return packed


def as_words(packed: Tensor) -> Tensor:
    """Packed uint8 (n, bytes) as int64 (n, ceil(bytes / 8)), padded with zero bits."""
    padded = torch.nn.functional.pad(packed, (0, -packed.shape[1] % 8))
    return padded.contiguous().view(torch.int64)


def check_signs(codes: Tensor) -> None:
    """Refuse codes that hold another value than -1 and +1."""
    wrong = (codes != 1) & (codes != -1)
    if not wrong.any():
        return
    if codes.is_floating_point() and torch.isnan(codes).any():
        raise UserError(nan_message(int(torch.isnan(codes).sum()), codes.shape))
    value = codes[wrong][0].item()
    raise UserError(
        f"codes hold the value {value}, expected only -1 and +1; "
        "pass them through retrieval.codes.binarize first (0/1 bits: 2 * bits - 1)"
    )


def check_packed(packed: Tensor, code_length: int) -> None:
    """Refuse packed codes whose width or padding does not fit `code_length`."""
    if packed.dtype != torch.uint8 or packed.ndim != 2:
        raise UserError(
            f"packed codes are {packed.dtype} of shape {tuple(packed.shape)}, "
            "expected uint8 (images, bytes)"
        )
    if code_length < 1 or packed.shape[1] != -(-code_length // 8):
        raise UserError(
            f"packed codes have {packed.shape[1]} bytes a code, but code_length={code_length} "
            f"needs {max(0, -(-code_length // 8))}; check code_length"
        )
    spare = code_length % 8
    if spare and bool((packed[:, -1] >> spare).any()):
        raise UserError(
            f"packed codes have bits set past code_length={code_length}; check code_length "
            "and the bit order (the least significant bit of a byte first)"
        )


def nan_message(count: int, shape: Sequence[int]) -> str:
    """One line about NaNs in codes."""
    return (
        f"codes of shape {tuple(shape)} hold {count} NaN, expected numbers; "
        "the network that made them has diverged, or a feature is missing"
    )


@dataclass(frozen=True)
class Codes:
    """The codes of one run: what `codes.npz` holds.

    Attributes:
        query_codes: packed uint8 (queries, ceil(code_length / 8)).
        database_codes: packed uint8 (database, ceil(code_length / 8)).
        code_length: bits of a code.
        query_labels: class indices (queries,), or multi-hot (queries, classes).
        database_labels: the same for the database.
        query_names: file names or other names, (queries,), or None.
        database_names: the same for the database, or None.
        class_names: one name a class, (classes,), or None.
        train_class_counts: training images of each class, (classes,), or None; the many-, medium-
            and few-shot groups are made from it.
        protocol: what was asked of what, in words, such as "IF100, all of the database ranked".
        dataset: the data set's name.
    """

    query_codes: np.ndarray[Any, np.dtype[np.uint8]]
    database_codes: np.ndarray[Any, np.dtype[np.uint8]]
    code_length: int
    query_labels: np.ndarray[Any, np.dtype[Any]]
    database_labels: np.ndarray[Any, np.dtype[Any]]
    query_names: np.ndarray[Any, np.dtype[np.str_]] | None = None
    database_names: np.ndarray[Any, np.dtype[np.str_]] | None = None
    class_names: np.ndarray[Any, np.dtype[np.str_]] | None = None
    train_class_counts: np.ndarray[Any, np.dtype[np.int64]] | None = None
    protocol: str = ""
    dataset: str = ""


def make_codes(**values: Any) -> Codes:
    """A `Codes` from arrays or tensors; codes may be -1 and +1 or packed with `code_length`.

    Raises:
        UserError: a field is unknown or missing, or lengths do not fit together.
    """
    known = [field.name for field in fields(Codes)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(f"codes have no field {unknown[0]!r}; the fields are {', '.join(known)}")
    required = ("query_codes", "database_codes", "query_labels", "database_labels")
    missing = [name for name in required if values.get(name) is None]
    if missing:
        raise UserError(f"codes lack {', '.join(missing)}; all of {', '.join(required)} are needed")
    length = _code_length(values)
    for side in ("query", "database"):
        codes = values[f"{side}_codes"]
        if as_tensor(codes).dtype != torch.uint8:
            codes = pack(codes)
        if length is None:
            raise UserError("packed codes came without code_length; give the bits of a code")
        check_packed(as_tensor(codes), length)
        values[f"{side}_codes"] = _numpy(codes)
        values[f"{side}_labels"] = _numpy(values[f"{side}_labels"])
        _check_length(values, side, len(codes))
    for name in ("query_names", "database_names", "class_names"):
        if values.get(name) is not None:
            values[name] = np.asarray(values[name], dtype=np.str_)
    if values.get("train_class_counts") is not None:
        values["train_class_counts"] = _numpy(values["train_class_counts"]).astype(np.int64)
    values["code_length"] = length
    return Codes(**values)


def save_codes(path: str | os.PathLike[str], **values: Any) -> None:
    """Write `codes.npz`: the fields of `Codes`, a compressed NumPy archive without pickles.

    Raises:
        UserError: as `make_codes`.
    """
    codes = make_codes(**values)
    stored = {field.name: getattr(codes, field.name) for field in fields(Codes)}
    stored = {name: value for name, value in stored.items() if value is not None}
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **stored)


def load_codes(path: str | os.PathLike[str]) -> Codes:
    """Read what `save_codes` wrote.

    Raises:
        UserError: the file is missing, is no such archive, or its fields do not fit together.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            values: dict[str, Any] = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a run writes its codes to codes.npz") from None
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise UserError(f"{path}: not a readable codes.npz ({error})") from None
    for name in ("protocol", "dataset"):
        if name in values:
            values[name] = str(values[name])
    try:
        return make_codes(**values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _numpy(values: Array) -> np.ndarray[Any, np.dtype[Any]]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _code_length(values: dict[str, Any]) -> int | None:
    """The bits of a code, stated or those of codes that are not packed; None when all are."""
    stated = values.get("code_length")
    if stated is not None:
        number = np.asarray(stated)
        if number.size != 1 or number.dtype.kind not in "iuf" or number.item() % 1:
            raise UserError(f"code_length is {stated!r}, expected one whole number")
        stated = int(number.item())
    widths = {}
    for side in ("query_codes", "database_codes"):
        tensor = as_tensor(values[side])
        if tensor.dtype != torch.uint8 and tensor.ndim == 2:
            widths[side] = tensor.shape[1]
    if len(set(widths.values())) > 1:
        raise UserError(
            f"query_codes have {widths['query_codes']} bits and database_codes"
            f" {widths['database_codes']}; give codes of one length"
        )
    width = next(iter(widths.values()), stated)
    if stated is not None and width != stated:
        raise UserError(
            f"codes of {width} bits came with code_length={stated}; "
            "leave code_length out, or give the codes' own"
        )
    return width


def _check_length(values: dict[str, Any], side: str, count: int) -> None:
    for name in (f"{side}_labels", f"{side}_names"):
        if values.get(name) is not None and len(values[name]) != count:
            raise UserError(
                f"{name} has {len(values[name])} entries for {count} {side} codes; "
                "give one a code, in the same order"
            )
