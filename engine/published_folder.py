"""A published model: one folder of plain files, whose checksums are verified before they are used.

It has no pickle: weights are safetensors, the rest is JSON, YAML, NumPy arrays and text.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import yaml
from torch import Tensor

from engine.weights_file import read_weights_file
from utils.atomic_file import atomic_path, write_json, write_text
from utils.errors import UserError

WEIGHTS = "model.safetensors"  # keys <network>.<tensor>
CONFIG = "config.yaml"
ABOUT = "model.json"  # what else a checkpoint holds: classes, epoch, the split's digest
PREPROCESSING = "preprocessing.json"
DATABASE_CODES = "database_codes.npz"  # of engine 'alternate' alone
CHECKSUMS = "checksums.txt"  # as sha256sum writes and checks them
_CHUNK = 1 << 20


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; on success sum its files up and rename it.

    A failure or a killed process leaves no `folder`.

    Raises:
        UserError: `folder` is there and not empty, or cannot be written.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} is there already; remove it, or choose another --output")
    temporary = folder.absolute().parent / f".unpublished-{uuid.uuid4().hex}"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        lines = [f"{_checksum(path)}  {path.name}\n" for path in sorted(temporary.iterdir())]
        write_text(temporary / CHECKSUMS, "".join(lines))
        temporary.rename(folder)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}); free space there, or choose "
            "another --output"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_model(folder: Path, checkpoint: dict[str, Any], about: dict[str, Any]) -> None:
    """Write what `read_folder` gives back.

    checkpoint: with `state_dict_best`, `config`, perhaps `database_codes`.
    about: plain values beside them; its `preprocessing` has a file of its own.
    """
    tensors = {
        f"{network}.{name}": tensor.detach().clone().contiguous()
        for network, state in checkpoint["state_dict_best"].items()
        for name, tensor in state.items()
    }
    with atomic_path(folder / WEIGHTS) as temporary:  # not by save_file, whose files are private
        temporary.write_bytes(safetensors.torch.save(tensors, {"format": "pt"}))
    write_text(folder / CONFIG, yaml.safe_dump(checkpoint["config"], sort_keys=False))
    about = dict(about)
    write_json(folder / PREPROCESSING, about.pop("preprocessing"))
    write_json(folder / ABOUT, about)
    if "database_codes" in checkpoint:
        stored = checkpoint["database_codes"]
        packed = {f"packed_{length}": each.numpy() for length, each in stored["packed"].items()}
        names = np.array(stored["names"], dtype=np.str_)
        with atomic_path(folder / DATABASE_CODES) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, names=names, fixed=stored["fixed"], **packed)


def read_folder(folder: Path) -> dict[str, Any]:
    """The checkpoint in a published folder, verified: what `engine.checkpoint` reads from a file.

    Raises:
        UserError: it is no such folder, or a file was changed, removed or added; names it.
    """
    verify(folder)
    try:
        values = dict(json.loads((folder / ABOUT).read_text(encoding="utf-8")))
        values["preprocessing"] = json.loads((folder / PREPROCESSING).read_text(encoding="utf-8"))
        values["config"] = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(values["config"], dict):
            raise ValueError(f"{CONFIG} holds no dict")
        values["state_dict_best"] = _networks(read_weights_file(folder / WEIGHTS))
        if (folder / DATABASE_CODES).exists():
            values["database_codes"] = _read_codes(folder / DATABASE_CODES)
        return values
    except UserError:
        raise
    except Exception as error:  # its files are as published: the publisher's mistake
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{folder} is no folder as python -m engine.publish writes it ({reason})"
        ) from error


def verify(folder: Path) -> None:
    """Raise a UserError unless a folder holds the very files that were published."""
    again = "fetch the folder anew, or publish it again"
    try:
        *lines, rest = (folder / CHECKSUMS).read_bytes().decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{folder} is no published model, for want of a readable {CHECKSUMS}; "
            "python -m engine.publish makes one of a run's folder"
        ) from error
    if rest:
        raise UserError(f"{folder / CHECKSUMS} ends within a line; {again}")
    published = {}
    for number, line in enumerate(lines, 1):
        checksum, _, name = line.partition("  ")
        if not name:
            raise UserError(
                f"{folder / CHECKSUMS}, line {number}: no checksum and name of a file; {again}"
            )
        published[name] = checksum
    present = {path.name for path in folder.iterdir()} - {CHECKSUMS}
    for name in sorted(published.keys() | {WEIGHTS, CONFIG, ABOUT, PREPROCESSING}):
        if name not in present:
            raise UserError(f"{folder} lacks {name}, which was published; {again}")
        if name not in published:
            raise UserError(f"{folder}: {CHECKSUMS} does not name {name}; {again}")
        try:
            checksum = _checksum(folder / name)
        except OSError as error:
            reason = error.strerror
            raise UserError(f"{folder / name} cannot be read ({reason}); {again}") from error
        if checksum != published[name]:
            raise UserError(f"{folder / name} was changed since it was published; {again}")
    for name in sorted(present - published.keys()):
        raise UserError(f"{folder} holds {name}, which was not published; take it out of there")


def _checksum(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _networks(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Each network's tensors, from names <network>.<tensor>."""
    networks: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        network, _, name = key.partition(".")
        networks.setdefault(network, {})[name] = tensor
    return networks


def _read_codes(path: Path) -> dict[str, Any]:
    """Database codes as a checkpoint holds them."""
    with np.load(path, allow_pickle=False) as archive:
        packed = {
            int(name.removeprefix("packed_")): torch.from_numpy(archive[name])
            for name in archive.files
            if name.startswith("packed_")
        }
        return {
            "names": archive["names"].tolist(),
            "fixed": int(archive["fixed"]),
            "packed": packed,
        }
