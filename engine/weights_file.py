"""Read files of weights: PyTorch's two formats and safetensors, without running their code."""

import argparse
import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, NoReturn

import safetensors.torch
import torch
from torch import Tensor, nn

from utils.errors import UserError

MAX_DEPTH = 64  # of dicts and lists in each other
_ZIP, _PICKLE, _LFS = b"PK\x03\x04", b"\x80", b"version https://git-lfs"
_PLAIN = (str, int, float, complex, bool, bytes, type(None), torch.dtype, torch.device)
_CODE = re.compile(r"GLOBAL (\S+)")


def read_weights_file(path: str | Path) -> Any:
    """Read .pth, .pt, .bin (PyTorch) or .safetensors, told apart by their content.

    PyTorch's files are read with weights_only=True: what needs code is refused, not run. Its zip
    archives carry checksums, which are verified; its older format and safetensors have none.

    Returns:
        what was saved: dicts, lists, numbers, texts, and dense tensors on the CPU.

    Raises:
        UserError: if the file is missing, damaged, or holds more than tensors and plain values.
    """
    path = Path(path)
    try:
        kind = _kind(path)
        if kind == "safetensors":
            values: Any = safetensors.torch.load(path.read_bytes())
        else:
            if kind == "archive":
                _check_archive(path)
            values = _load_pickled(path)
            if kind == "pickles":
                _check_pickles(path)
        return _plain(values, path, "", {}, 0)
    except UserError:
        raise
    except Exception as error:  # what the readers raise on a foreign file has no common type
        raise _unreadable(path, error) from error


def _kind(path: Path) -> str:
    """The format of a file by its first bytes."""
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist; train it first, or correct its path")
    with path.open("rb") as file:
        head = file.read(len(_LFS))
    if head[8:10] == b'{"':  # after the header's length, whose first byte may be any
        return "safetensors"
    if head.startswith(_ZIP):
        return "archive"
    if head.startswith(_PICKLE):
        return "pickles"
    if path.suffix == ".safetensors":
        return "safetensors"
    if head == _LFS:
        _refuse(path, "is a pointer of Git LFS in place of the file; run git lfs pull")
    found = f"starts with {head[:8]!r}" if head else "is empty"
    _refuse(path, f"is no file of weights (it {found}); expected .pth, .pt, .bin or .safetensors")


def _check_archive(path: Path) -> None:
    """Refuse a zip archive that is not as torch.save writes it, or whose checksums differ."""
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        names = [part.filename.casefold() for part in parts]
        if any(name.endswith("constants.pkl") for name in names):
            _refuse(path, "is a TorchScript program; save its state_dict() and load that")
        if not any(name.endswith("/data.pkl") for name in names):
            _refuse(path, f"is a zip archive of other things ({names[0] if names else 'nothing'})")
        if len(set(names)) < len(names) or len({name.split("/")[0] for name in names}) > 1:
            _refuse(path, "is a zip archive with two parts of one name, or of two files")
        compressed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
        if compressed or sum(part.file_size for part in parts) > path.stat().st_size:
            _refuse(path, "is a compressed zip archive, which torch.save does not write")
        damaged = archive.testzip()
    if damaged:
        _refuse(
            path,
            f"is damaged, or was saved without checksums: {damaged} differs from its own; "
            "copy it anew, or save it with them",
        )


def _load_pickled(path: Path) -> Any:
    """Read what torch.save wrote; the options that training scripts add are plain values too."""
    with (
        path.open("rb") as file,  # by its name torch.load would take .safetensors at its word
        warnings.catch_warnings(),
        torch.serialization.safe_globals([argparse.Namespace]),
    ):
        warnings.simplefilter("ignore", UserWarning)
        return torch.load(file, map_location="cpu", weights_only=True)


def _check_pickles(path: Path) -> None:
    """Refuse PyTorch's older format where its list of storages names one twice.

    The storage that is missing then would hold whatever was in memory.
    """
    with path.open("rb") as file:
        for _ in range(4):  # magic number, version, system, and what was saved
            for _ in pickletools.genops(file):
                pass
        keys = [argument for _, argument, _ in pickletools.genops(file)]
    names = [key for key in keys if isinstance(key, str)]
    if len(set(names)) < len(names):
        _refuse(path, "is damaged: it stores one tensor's numbers twice; copy it anew")


def _plain(value: Any, path: Path, place: str, seen: dict[int, Any], depth: int) -> Any:
    """A copy without what a file may hang on its objects; tensors share their numbers."""
    if type(value) in _PLAIN:
        return value
    if id(value) in seen:
        return seen[id(value)]
    if depth > MAX_DEPTH:
        _refuse(path, f"nests dicts and lists more than {MAX_DEPTH} deep")
    if isinstance(value, Tensor):
        copy: Any = _dense(value, path, place)
    elif isinstance(value, dict | argparse.Namespace):
        items = dict.items(value if isinstance(value, dict) else vars(value))
        copy = {
            key: _plain(each, path, f"{place}.{key}".lstrip("."), seen, depth + 1)
            for key, each in items
        }
    elif isinstance(value, list | tuple | set):
        parts = [_plain(each, path, f"{place}[]", seen, depth + 1) for each in value]
        copy = parts if isinstance(value, list) else tuple(parts)
        copy = set(parts) if isinstance(value, set) else copy
    else:
        _refuse(path, f"holds a {type(value).__name__} as {place}, expected tensors and numbers")
    seen[id(value)] = copy
    return copy


def _dense(tensor: Tensor, path: Path, place: str) -> Tensor:
    """The tensor without attributes, if it is a usual one."""
    if type(tensor) not in (Tensor, nn.Parameter):
        _refuse(path, f"holds a {type(tensor).__name__} as {place}, expected plain tensors")
    bare = Tensor.detach(tensor)
    if bare.layout != torch.strided or bare.is_meta or bare.is_quantized or bare.is_nested:
        _refuse(path, f"holds a tensor without plain numbers as {place}")
    least = 1  # stride at which a dimension does not run into the smaller ones
    dimensions = zip(bare.stride(), bare.shape, strict=True) if bare.numel() else ()
    for stride, size in sorted(dimensions):
        if size > 1 and stride < least:
            _refuse(path, f"holds a tensor that repeats its numbers as {place}; is it damaged?")
        least += (size - 1) * stride
    return bare


def _refuse(path: Path, what: str) -> NoReturn:
    raise UserError(f"checkpoint {path} {what}")


def _unreadable(path: Path, error: Exception) -> UserError:
    """One line for what a reader raised."""
    text = str(error)
    code = _CODE.search(text)
    if code:
        return UserError(
            f"checkpoint {path} needs code to load ({code.group(1)}), which is not run; "
            "save a dict of plain tensors, such as state_dict(), and load that"
        )
    text = text.rpartition("WeightsUnpickler error:")[2].partition("Check the documentation")[0]
    reason = " ".join(text.split())[:200] or type(error).__name__
    return UserError(f"checkpoint {path} cannot be read as weights ({reason}); is it complete?")
