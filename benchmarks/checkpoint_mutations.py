"""Ways in which a checkpoint file can be broken, swapped or hostile."""

import copy
import gzip
import io
import json
import os
import pickle
import random
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.checkpoint_zoo import SPECIMENS, Place, Specimen, write

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", "")


@dataclass(frozen=True)
class Mutant:
    """A file, and what it truly holds.

    specimen: whose networks it is loaded into. values: what is in the file; None where nothing in
    it may be loaded. bits: how many bits of `values` may have changed, in a format that has no
    checksum to tell.
    """

    what: str
    specimen: Specimen
    path: Path
    values: dict[str, Any] | None
    bits: int = 0

    def __str__(self) -> str:
        return f"{self.specimen.name}, {self.what}"


def mutate(rng: random.Random, folder: Path, canary: Path) -> Mutant:
    """Write one mutant into `folder`; code in it, were it run, would make the folder `canary`."""
    torch.manual_seed(rng.randrange(2**32))
    specimen = rng.choice(SPECIMENS)()
    path = folder / f"checkpoint{rng.choice(SUFFIXES)}"
    kinds = (_of_values, _of_values, _of_bytes, _of_bytes, _of_code, _of_containers)
    return rng.choice(kinds)(rng, specimen, path, canary)


def _of_values(rng: random.Random, specimen: Specimen, path: Path, canary: Path) -> Mutant:
    """Something is wrong with one or a few entries."""
    values = copy.deepcopy(specimen.values)
    state = _at(values, rng.choice(specimen.states))
    name = rng.choice([key for key, value in state.items() if isinstance(value, Tensor)])
    change = rng.choice(CHANGES if specimen.kind != "safetensors" else CHANGES[:-2])
    said = change(rng, values, state, name)
    write(values, specimen.kind, path)
    return Mutant(f"{change.__name__} {name} {said}".strip(), specimen, path, values)


def drop(rng: random.Random, values: Any, state: Any, name: str) -> str:
    del state[name]
    return ""


def drop_many(rng: random.Random, values: Any, state: Any, name: str) -> str:
    names = rng.sample(list(state), rng.randint(1, len(state)))
    for each in names:
        del state[each]
    if not state:
        state[name] = torch.zeros(1)
    return f"and others, {len(names)} in all"


def rename(rng: random.Random, values: Any, state: Any, name: str) -> str:
    place = rng.randrange(len(name))
    options = (name.upper(), f"x.{name}", f"{name}.x", name[:place] + "q" + name[place + 1 :], "")
    new = rng.choice(options)
    state[new] = state.pop(name)
    return f"to {new!r}"


def add(rng: random.Random, values: Any, state: Any, name: str) -> str:
    state[rng.choice(("extra", f"{name}2", f"module.{name}"))] = state[name].clone()
    return "once more, by another name"


def swap(rng: random.Random, values: Any, state: Any, name: str) -> str:
    other = rng.choice(list(state))
    state[name], state[other] = state[other], state[name]
    return f"with {other}"


def retype(rng: random.Random, values: Any, state: Any, name: str) -> str:
    kinds = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int8, torch.bool)
    kind = rng.choice(kinds)
    state[name] = state[name].to(kind)
    return f"to {kind}"


def reshape(rng: random.Random, values: Any, state: Any, name: str) -> str:
    value = state[name]
    ways: list[Callable[[Tensor], Tensor]] = [
        lambda each: each[None],
        lambda each: each.flatten(),
        lambda each: each[:0] if each.ndim else each[None],
        lambda each: each.transpose(0, -1).contiguous() if each.ndim else each[None],
        lambda each: each.repeat(2) if each.ndim == 1 else each.reshape(-1, 1),
    ]
    state[name] = rng.choice(ways)(value)
    return f"from {tuple(value.shape)} to {tuple(state[name].shape)}"


def spoil(rng: random.Random, values: Any, state: Any, name: str) -> str:
    numbers = [key for key, value in state.items() if value.is_floating_point() and value.numel()]
    chosen = rng.choice(numbers)
    bad = rng.choice((float("nan"), float("inf"), -float("inf")))
    state[chosen].view(-1)[rng.randrange(state[chosen].numel())] = bad
    return f"(in fact {chosen}) with {bad}"


def replace(rng: random.Random, values: Any, state: Any, name: str) -> str:
    state[name] = rng.choice(("text", 3, None, [1.0, 2.0], {"weight": state[name]}, b"bytes"))
    return f"by a {type(state[name]).__name__}"


def disturb_outside(rng: random.Random, values: Any, state: Any, name: str) -> str:
    key = rng.choice(list(values))
    if rng.random() < 0.5:
        values[key] = rng.choice(("text", 3, -1.5, None, [1], {}, torch.zeros(2)))
        return f"apart; {key} replaced by a {type(values[key]).__name__}"
    values[f"{key}_"] = values.pop(key)
    return f"apart; {key} renamed"


CHANGES: tuple[Callable[[random.Random, Any, Any, str], str], ...] = (
    drop, drop_many, rename, add, swap, retype, reshape, spoil, replace, disturb_outside,
)  # fmt: skip


def _of_bytes(rng: random.Random, specimen: Specimen, path: Path, canary: Path) -> Mutant:
    """The file is damaged."""
    write(specimen.values, specimen.kind, path)
    content = bytearray(path.read_bytes())
    checked = specimen.kind == "archive"
    place, bits = rng.randrange(len(content)), 0
    damage = rng.choice(("flip", "flip", "flip", "cut", "longer", "shifted", "overwritten", "zero"))
    if damage in ("overwritten", "zero") and not checked:
        damage = "flip"
    if damage == "flip":
        content[place] ^= 1 << rng.randrange(8)
        bits = 0 if checked else 1
    elif damage == "cut":
        del content[place:]
    elif damage == "longer":
        content += rng.randbytes(rng.randint(1, 100))
    elif damage == "shifted":
        content[place:place] = rng.randbytes(rng.randint(1, 100))
    else:
        length = rng.randint(1, 64)
        new = bytes(length) if damage == "zero" else rng.randbytes(length)
        content[place : place + length] = new
    path.write_bytes(content)
    return Mutant(f"{damage} at byte {place}", specimen, path, specimen.values, bits)


class Code:
    """Would make a folder where it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def _of_code(rng: random.Random, specimen: Specimen, path: Path, canary: Path) -> Mutant:
    """The file asks for code to be run."""
    make = f"import os; os.mkdir({str(canary)!r})"
    hostile = rng.choice(
        (
            Code(os.mkdir, str(canary)),
            Code(os.system, f"mkdir {canary}"),
            Code(exec, make),
            Code(eval, f"__import__('os').mkdir({str(canary)!r})"),
            Code(getattr, Code(__import__, "os"), "mkdir"),
            Code(torch.load, str(canary)),
            Code(map, Code(eval, f"lambda x: __import__('os').mkdir({str(canary)!r})"), [1]),
        )
    )
    protocol = rng.choice((0, 1, 2, 3, 4, 5))
    values: Any = copy.deepcopy(specimen.values)
    where = rng.choice(("alone", "beside", "as a tensor"))
    if where == "alone":
        values = hostile
    elif where == "beside":
        values["extra"] = hostile
    else:
        state = _at(values, rng.choice(specimen.states))
        state[rng.choice(list(state))] = hostile
    form = rng.choice(("archive", "pickles", "bare"))
    if form == "bare":
        path.write_bytes(pickle.dumps(hostile if where == "alone" else {"w": hostile}, protocol))
    else:
        new = form == "archive"
        torch.save(values, path, pickle_protocol=protocol, _use_new_zipfile_serialization=new)
    return Mutant(f"code {where}, {form}, protocol {protocol}", specimen, path, None)


def _of_containers(rng: random.Random, specimen: Specimen, path: Path, canary: Path) -> Mutant:
    """The file is another one, or one of another format."""
    what = rng.choice(list(CONTAINERS))
    values = CONTAINERS[what](rng, specimen, path)
    return Mutant(what, specimen, path, values)


def other_specimen(rng: random.Random, specimen: Specimen, path: Path) -> None:
    other = specimen
    while other.name == specimen.name:
        other = rng.choice(SPECIMENS)()
    write(other.values, other.kind, path)


def other_format(rng: random.Random, specimen: Specimen, path: Path) -> dict[str, Any]:
    kinds = [kind for kind in ("archive", "pickles") if kind != specimen.kind]
    write(specimen.values, rng.choice(kinds), path)
    return specimen.values


def inflating_archive(rng: random.Random, specimen: Specimen, path: Path) -> None:
    """Bytes that would become gigabytes: each tensor's numbers are a deflated run of zeros."""
    values = copy.deepcopy(specimen.values)
    whole = path.with_name("whole")
    write(values, "archive", whole)
    with (
        zipfile.ZipFile(whole) as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for part in old.namelist():
            content = bytes(200_000) if "/data/" in part else old.read(part)
            new.writestr(part, content)
    whole.unlink()


def endless_tensor(rng: random.Random, specimen: Specimen, path: Path) -> None:
    """A tensor of 10^12 numbers that are one number."""
    values = copy.deepcopy(specimen.values)
    state = _at(values, rng.choice(specimen.states))
    state[rng.choice(list(state))] = torch.zeros(1).expand(10**12)
    torch.save(values, path)


def deep_lists(rng: random.Random, specimen: Specimen, path: Path) -> None:
    nested: Any = []
    for _ in range(rng.choice((20, 100, 200))):
        nested = [nested]
    torch.save({"state_dict_best": nested}, path)


def wrong_header(rng: random.Random, specimen: Specimen, path: Path) -> None:
    """safetensors whose header says other things than its numbers."""
    header = {"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
    key, value = rng.choice(
        (("dtype", "F64"), ("dtype", "F33"), ("shape", [2**40, 2**40]), ("shape", [-1]),
         ("data_offsets", [0, 2**60]), ("data_offsets", [8, 0]), ("shape", "2"))
    )  # fmt: skip
    header["w"][key] = value
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))


def foreign_file(rng: random.Random, specimen: Specimen, path: Path) -> None:
    content = io.BytesIO()
    kind = rng.choice(("npz", "gzip", "tar", "json", "page", "pointer", "picture", "random", "zip"))
    if kind == "npz":
        np.savez(content, weight=np.zeros(3, np.float32))
    elif kind == "gzip":
        write(specimen.values, specimen.kind, path)
        content.write(gzip.compress(path.read_bytes()))
    elif kind == "tar":
        with tarfile.open(fileobj=content, mode="w") as archive:
            for name in ("storages", "tensors", "pickle"):
                archive.addfile(tarfile.TarInfo(name))
    elif kind == "zip":
        with zipfile.ZipFile(content, "w") as zipped:
            zipped.writestr("a/data.pkl", pickle.dumps({"weight": 1}, 2))
    else:
        texts = {
            "json": b'{"model": {"conv1.weight": [1, 2]}}',
            "page": b"<!DOCTYPE html><title>404</title>",
            "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "picture": b"\x89PNG\r\n\x1a\n" + bytes(40),
            "random": rng.randbytes(rng.randint(0, 500)),
        }
        content.write(texts[kind])
    path.write_bytes(content.getvalue())


CONTAINERS: dict[str, Callable[[random.Random, Specimen, Path], dict[str, Any] | None]] = {
    each.__name__: each
    for each in (
        other_specimen, other_format, inflating_archive, endless_tensor, deep_lists, wrong_header,
        foreign_file,
    )
}  # fmt: skip


def _at(values: Any, place: Place) -> Any:
    for key in place:
        values = values[key]
    return values
