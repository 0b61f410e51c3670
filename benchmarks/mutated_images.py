"""Mutated images: each is shown as a viewer shows it, or refused by one line that names it.

A mutant is a file of `benchmarks.strange_images`, whole or spoilt, under a strange name. Whole ones
must give the pixels that were drawn, spoilt ones those of `benchmarks.image_oracle` where it knows
the kind; and every way in which a run reads files must come to the same. What a run checks before
training must find all that is refused, each by its name, and nothing that is not.
"""

import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.fault_findings import Finding
from benchmarks.image_oracle import oracle_pixels
from benchmarks.strange_images import StrangeImage, strange_images
from data.augment import Augmentation
from data.check import check_source
from data.decoding import decode_files
from data.faults import DataError, shown
from data.file_images import FileImages
from data.image_file import check_image, read_image
from data.jpeg import decode_jpegs, read_plain_jpeg
from data.jpeg_files import join_jpegs
from data.source import Source
from utils.errors import UserError

SECONDS = 20  # of one mutant; more is a hang
LONGEST_LINE = 1000  # characters of a refusal beside the file's name
WHOLE_SHARE = 0.3  # of the mutants
SPOILT_ALIKE = 3  # levels by which two decoders may differ
STEMS = ["", "é漢字", "a\nb", "x" * 150, " two  words ", "{0}%s", "\u202e", "'\"", "-rf", "#?*"]
_CPU = torch.device("cpu")


class TooSlow(BaseException):
    """No part of the project may catch it."""


@dataclass(frozen=True)
class Mutant:
    """A file.

    whole: the image that it is; None if it was spoilt.
    """

    name: str
    content: bytes
    whole: StrangeImage | None


def run(count: int, seed: int, folder: Path) -> Finding:
    """Read `count` mutants, drawn from the seed and written into the folder, in every way."""
    start = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    readable, compared = [], 0
    mutants = mutated_images(count, np.random.default_rng(seed))
    for mutant in mutants:
        path = folder / mutant.name
        path.write_bytes(mutant.content)
        faults, found, truth = judged(path, mutant)
        failures += [f"seed {seed}, {mutant.name!r}: {fault}" for fault in faults]
        readable.append(found is not None)
        compared += truth is not None
    failures += wrong_reports(folder, [mutant.name for mutant in mutants], readable)
    return Finding(
        "mutated_images",
        count,
        failures,
        time.monotonic() - start,
        {"shown": sum(readable), "refused": count - sum(readable), "compared": compared},
    )


def mutated_images(count: int, rng: np.random.Generator) -> list[Mutant]:
    """Return mutants with unique names; about WHOLE_SHARE of them are whole."""
    pool: list[StrangeImage] = []
    mutants = []
    for number in range(count):
        if not pool:
            images = strange_images(rng)
            pool = [images[index] for index in rng.permutation(len(images))]
        image = pool.pop()
        how, content = "whole", image.content
        if rng.random() > WHOLE_SHARE:
            how = str(rng.choice(list(SPOILS)))
            other = images[rng.integers(len(images))]
            content = SPOILS[how](rng, content, other.content)
        stem = STEMS[rng.integers(len(STEMS))]
        whole = image if content == image.content else None
        mutants.append(Mutant(f"{number:04d}_{how}_{stem}_{image.name}", content, whole))
    return mutants


def judged(path: Path, mutant: Mutant) -> tuple[list[str], np.ndarray | None, np.ndarray | None]:
    """Return what is wrong with how a mutant is read, its pixels and those it should have.

    The second is None where the mutant is refused, the third where nobody knows.
    """
    found, truth = None, None
    try:
        with time_limit(SECONDS):
            found = read_named(path, read_image)
            truth, tolerance = true_pixels(mutant)
            faults = list(_disagreements(path, found))
            if mutant.whole and (found is None) != (mutant.whole.pixels is None):
                faults.append("refused" if found is None else "shown, though there is nothing")
            elif found is not None and truth is not None:
                faults += _differences("the truth", found, truth, tolerance)
    except (Exception, TooSlow) as error:  # the very thing that is looked for
        faults = [f"{type(error).__name__}: {error}"]
    return faults, found, truth


def read_named(path: Path, read: Callable[[Path], object]) -> np.ndarray | None:
    """Return the pixels that a function reads, None if it refuses the file.

    Raises:
        ValueError: it refuses without the file's name, or not in one line.
    """
    try:
        return np.asarray(read(path))
    except UserError as error:
        line = str(error)
        if shown(path) not in line or not line.isprintable():
            raise ValueError(f"refused without its name: {line!r}") from error
        if len(line) > len(shown(path)) + LONGEST_LINE:
            raise ValueError(f"refused at length: {line!r}") from error
        return None


def true_pixels(mutant: Mutant) -> tuple[np.ndarray | None, int]:
    """Return (H, W, 3) uint8 that a viewer shows, None if unknown, and by how much it may err."""
    if mutant.whole:
        return mutant.whole.pixels, mutant.whole.tolerance
    return oracle_pixels(mutant.content), SPOILT_ALIKE


def _disagreements(path: Path, found: np.ndarray | None) -> Iterator[str]:
    """Yield how the other ways of reading a file differ from `found`, its pixels or None."""
    checked = read_named(path, check_image) is not None
    if checked != (found is not None):
        yield f"check_image {'takes' if checked else 'refuses'} it, read_image does not"
    row = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    if (read_named(path, lambda file: decode_files(row, [str(file)], 1)) is None) != (
        found is None
    ):
        yield "decode_files and read_image differ in whether it can be read"
    jpeg = read_plain_jpeg(path)
    if jpeg is None:
        return
    files = join_jpegs([jpeg[0]], [jpeg[1]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decoded = read_named(
            path,
            lambda file: decode_jpegs(files, _CPU, lambda _: read_image(file)).split()[0],
        )
    if found is not None and decoded is None:
        yield "the device's decoder refuses what Pillow reads"
    elif found is not None and decoded is not None:
        yield from _differences("the device", found, decoded.transpose(1, 2, 0), SPOILT_ALIKE)


def _differences(what: str, found: np.ndarray, truth: np.ndarray, tolerance: int) -> Iterator[str]:
    if found.shape != truth.shape:
        yield f"{found.shape} pixels, {what} has {truth.shape}"
    elif (levels := int(np.abs(found.astype(int) - truth).max())) > tolerance:
        yield f"{levels} levels from {what}, expected {tolerance} at most"


def wrong_reports(folder: Path, names: list[str], readable: list[bool]) -> Iterator[str]:
    """Yield how what is said of all files at once differs from what was found of each."""
    labels = np.zeros(len(names), dtype=np.int64)
    source = Source("mutants", ["a"], names, labels, {"all": np.arange(len(names))}, root=folder)
    refused = [
        shown(folder / name) for name, known in zip(names, readable, strict=True) if not known
    ]
    for what, lines in (
        ("--check_data", check_source(source).unreadable),
        ("the check before training", _faults(source, np.arange(len(names)))),
    ):
        if len(lines) != len(refused):
            yield f"{what} lists {len(lines)} files, expected {len(refused)}"
        for line, name in zip(lines, refused, strict=False):
            if name not in line:
                yield f"{what} does not name {name}"
    good = np.flatnonzero(readable)
    if lines := _faults(source, good):
        yield f"the check before training refuses {lines[0]}"
    options = {"training": True, "seed": 0, "device": _CPU}
    batches = FileImages(source).batches([good], Augmentation(16), **options)  # type: ignore[arg-type]
    if sum(len(images) for images, _ in batches) != len(good):
        yield "a batch of all that is readable lacks some"


def _faults(source: Source, indices: np.ndarray) -> list[str]:
    try:
        FileImages(source).digests(indices)
    except DataError as error:
        return error.faults
    return []


def _flip(rng: np.random.Generator, content: bytes, _: bytes) -> bytes:
    spoilt = np.frombuffer(content or b"\0", dtype=np.uint8).copy()
    places = rng.integers(len(spoilt), size=rng.integers(1, 17))
    np.bitwise_xor.at(spoilt, places, (1 << rng.integers(0, 8, places.size)).astype(np.uint8))
    return spoilt.tobytes()


def _edit_header(rng: np.random.Generator, content: bytes, _: bytes) -> bytes:
    spoilt = bytearray(content or b"\0")
    for place in rng.integers(min(len(spoilt), 64), size=rng.integers(1, 5)):
        spoilt[place] = rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))])
    return bytes(spoilt)


def _hole(rng: np.random.Generator, content: bytes, _: bytes) -> bytes:
    start, length = rng.integers(len(content) + 1), rng.integers(1, 200)
    return content[:start] + bytes(len(content[start : start + length])) + content[start + length :]


def _cut(rng: np.random.Generator, content: bytes, _: bytes) -> bytes:
    return content[: rng.integers(len(content) + 1)]


def _cut_end(rng: np.random.Generator, content: bytes, _: bytes) -> bytes:
    return content[: -rng.integers(1, 20)]


def _swap(rng: np.random.Generator, content: bytes, other: bytes) -> bytes:
    return content[: rng.integers(4, 60)] + other[rng.integers(4, 60) :]


def _join(rng: np.random.Generator, content: bytes, other: bytes) -> bytes:
    return content + other


def _lengthen(rng: np.random.Generator, content: bytes, _: bytes) -> bytes:
    return content + rng.bytes(int(rng.integers(1, 500)))


def _repeat(rng: np.random.Generator, content: bytes, _: bytes) -> bytes:
    start, end = sorted(rng.integers(len(content) + 1, size=2))
    return content[:end] + content[start:]


SPOILS: dict[str, Callable[[np.random.Generator, bytes, bytes], bytes]] = {
    "flip": _flip,
    "header": _edit_header,
    "hole": _hole,
    "cut": _cut,
    "cut_end": _cut_end,
    "swap": _swap,
    "join": _join,
    "longer": _lengthen,
    "repeat": _repeat,
}


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TooSlow if a block of the main thread takes longer."""

    def stop(*_: object) -> None:
        raise TooSlow(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
