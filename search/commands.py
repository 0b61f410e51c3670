"""What the commands of `python -m search.index` do."""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from data.faults import shown
from engine.checkpoint import BEST
from engine.coding_options import coding_options
from engine.image_list import ImageFiles, list_images
from search.cluster_output import is_output
from search.coder import Coder
from search.opening import check_new, create_index, open_index
from search.run_pictures import (
    PICTURES,
    held_in_memory,
    image_root,
    picture_rows,
    run_source,
    write_pictures,
)
from search.sources import CODES, Batch, holds_codes, image_rows, read_batches
from search.store import Coding, Index
from search.where import Among
from utils.errors import UserError

CODING = ("device", "precision")  # options of engine.coding_options


def build(arguments: argparse.Namespace) -> int:
    """Make an index of what the command line names; returns the exit status."""
    check_new(arguments.output)
    checkpoint = arguments.checkpoint
    started = time.perf_counter()
    unreadable: dict[str, str] = {}
    if _are_codes(arguments.source):
        index = _build_from_codes(arguments, arguments.source[0])
    else:
        if not checkpoint:
            raise UserError(
                f"{arguments.source[0]}: no {CODES} there; to code images, give --checkpoint"
            )
        files = list_images(arguments.source)
        coder = Coder(checkpoint, arguments.code_length, coding_options(arguments, *CODING))
        coding = coder.coding(str(files.root.resolve()))
        index = create_index(arguments.output, coding, arguments.store, arguments.kind)
        unreadable = add_images(index, coder, files)
    index.compact()
    _say(index, arguments.output, f"built in {time.perf_counter() - started:.1f} s")
    return _report(unreadable)


def _build_from_codes(arguments: argparse.Namespace, place: str) -> Index:
    source = None if arguments.image_root or is_output(place) else run_source(Path(place))
    coding, batches = read_batches(place, arguments.image_root or image_root(source))
    coding = _with_model(coding, arguments.checkpoint, Path(place))
    if arguments.pictures:
        images, folder = held_in_memory(source), Path(arguments.output, PICTURES).resolve()
        coding = replace(coding, image_root=str(folder))
    index = create_index(arguments.output, coding, arguments.store, arguments.kind)
    for batch in batches:
        rows = batch.rows
        if arguments.pictures:
            write_pictures(images, rows, folder)
            rows = picture_rows(rows)
        index.add(batch.codes, rows)
    return index


def add(arguments: argparse.Namespace) -> int:
    """Add what the command line names; returns the exit status."""
    index = open_index(arguments.index)
    before = len(index)
    started = time.perf_counter()
    unreadable: dict[str, str] = {}
    if _are_codes(arguments.source):
        place = arguments.source[0]
        coding, batches = read_batches(place, arguments.image_root or index.coding.image_root)
        coding = _with_model(coding, arguments.checkpoint, Path(place))
        for batch in batches:
            new = _without_held(index, batch)
            index.add(new.codes, new.rows, coding.model_digest)
    else:
        place = arguments.checkpoint or index.coding.checkpoint
        if not place:
            raise UserError("the index does not say which model made its codes; --checkpoint does")
        files = list_images(arguments.source)
        coder = Coder(place, index.coding.code_length, coding_options(arguments, *CODING))
        unreadable = add_images(index, coder, files)
    seconds = time.perf_counter() - started
    _say(index, arguments.index, f"{len(index) - before} added in {seconds:.1f} s")
    return _report(unreadable)


def add_images(index: Index, coder: Coder, files: ImageFiles) -> dict[str, str]:
    """Code and add the images whose paths the index does not hold, chunk by chunk.

    What is added stays when this is interrupted, and is passed over when it is run again.

    Returns:
        name → why, of those that cannot be read.

    Raises:
        UserError: another model made the index's codes.
    """
    index.coding.check_model(coder.digest)
    root = Path(index.coding.image_root or ".").resolve()
    names = {_row_path(Path(files.root, name).absolute(), root): name for name in files.names}
    held = held_paths(index, list(names))
    new = [path for path in names if path not in held]
    unreadable = dict(files.unusable)
    for part in coder.chunks(len(new)):
        paths = new[part]
        codes, broken = coder.code(files.root, [names[path] for path in paths])
        whole = [at for at, path in enumerate(paths) if names[path] not in broken]
        rows = image_rows([paths[at] for at in whole], str(root))
        index.add(codes[whole], rows, coder.digest)
        unreadable |= broken
    return unreadable


def _without_held(index: Index, batch: Batch) -> Batch:
    """Those of a batch whose paths the index does not hold."""
    paths = batch.rows["path"].to_pylist()
    held = held_paths(index, [path for path in paths if path])
    new = np.array([path not in held for path in paths], bool)
    return Batch(batch.codes[new], batch.rows.filter(pa.array(new)))


def held_paths(index: Index, paths: Sequence[str]) -> set[str]:
    """Those of the paths that the index holds."""
    if not paths:
        return set()
    return set(index.rows(index.select(Among("path", tuple(paths))))["path"].to_pylist())


def remove(arguments: argparse.Namespace) -> int:
    """Remove items by id or by a condition; returns the exit status."""
    index = open_index(arguments.index)
    ids = np.array(arguments.ids, np.int64) if arguments.ids else index.select(arguments.filter)
    _say(index, arguments.index, f"{index.remove(ids)} removed")
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Read all of an index; the exit status is 1 when there are faults."""
    faults = open_index(arguments.index).verify()
    for fault in faults:
        print(fault)
    print(f"{arguments.index}: {len(faults)} faults" if faults else f"{arguments.index}: sound")
    return 1 if faults else 0


def info(arguments: argparse.Namespace) -> int:
    """Print what an index is; returns the exit status."""
    values = open_index(arguments.index).info()
    width = max(map(len, values))
    for name, value in values.items():
        text = f"{len(value)} of them" if isinstance(value, tuple) and len(value) > 10 else value
        print(f"{name:<{width}}  {text}")
    return 0


def compact(arguments: argparse.Namespace) -> int:
    """Merge an index's parts and build its structure; returns the exit status."""
    index = open_index(arguments.index)
    started = time.perf_counter()
    index.compact(arguments.kind)
    _say(index, arguments.index, f"compacted in {time.perf_counter() - started:.1f} s")
    return 0


def _are_codes(sources: Sequence[str]) -> bool:
    """Whether the source is codes; of these it is one at a time."""
    if len(sources) > 1 and any(map(holds_codes, sources)):
        raise UserError("give one source of codes at a time; add takes the next")
    return len(sources) == 1 and holds_codes(sources[0])


def _with_model(coding: Coding, checkpoint: str | None, source: Path) -> Coding:
    """The coding with the model that `checkpoint` names, else the run's own beside its codes."""
    folder = source if source.is_dir() else source.parent
    if checkpoint is None and not coding.model_digest and (folder / BEST).is_file():
        checkpoint = str(folder)
    if checkpoint is None:
        if not coding.model_digest:
            print(f"{source} does not say which model made its codes: queries by any model of "
                  f"{coding.code_length} bits will be taken; --checkpoint names it")  # fmt: skip
        return coding
    coder = Coder(checkpoint, coding.code_length)
    coding.check_model(coder.digest)
    return replace(coding, model_digest=coder.digest, checkpoint=coder.checkpoint)


def _row_path(path: Path, root: Path) -> str:
    """The path as a row has it: from the index's root where it lies below, else absolute."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _say(index: Index, place: str, done: str) -> None:
    print(f"{place}: {done}; {len(index)} codes of {index.coding.code_length} bits")


def _report(unreadable: dict[str, str]) -> int:
    for name, why in unreadable.items():
        print(f"not added: {shown(name)}: {why}", file=sys.stderr)
    return 1 if unreadable else 0
