"""A segment: codes, ids and rows that are written once and then only read, memory-mapped.

Its folder holds codes.npy, words (words, n) uint64, which the scan reads as they are; ids.npy,
ascending int64 (n,); rows.arrow, Arrow's IPC file format, since that opens at once and gives any
row by its position without decoding others, which Parquet does not. Bytes and digests of the
files stand in the manifest.
"""

import hashlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from search.rows import SCHEMA
from search.scan import Words, as_packed
from search.store import Ids, Packed
from utils.atomic_file import atomic_path

FILES = ("codes.npy", "ids.npy", "rows.arrow")
# NumPy parses a file's header by `ast`, which Python 3.11 breaks off when threads do so at once
# (SystemError: AST constructor recursion depth mismatch).
_HEADERS = threading.Lock()
ROW_BATCH = 1 << 20  # rows of a batch of the file: text of one stays below Arrow's 2 GiB
# Labels and splits repeat: as numbers into a dictionary they are small, and filtered at once.
_STORED = pa.schema(
    [
        SCHEMA.field("path"),
        ("label", pa.dictionary(pa.int32(), pa.string())),
        ("split", pa.dictionary(pa.int32(), pa.string())),
        SCHEMA.field("width"),
        SCHEMA.field("height"),
    ]
)


@dataclass(frozen=True)
class Part:
    """Items on their way into a segment, or out of one."""

    columns: Words  # (words, n)
    ids: Ids  # (n,), ascending
    rows: pa.Table


class Segment:
    """An open segment.

    Args:
        folder: where it lies.
        stated: what `write_segment` gave.

    Raises:
        FileNotFoundError: it is not there (any more).
        OSError, ValueError: its files are damaged.
    """

    def __init__(self, folder: Path, stated: dict[str, Any]) -> None:
        self.folder, self.stated = folder, stated
        self.name = folder.name
        self.columns: Words = load_array(folder / "codes.npy")
        self.ids: Ids = load_array(folder / "ids.npy")
        reader = pa.ipc.open_file(pa.memory_map(str(folder / "rows.arrow")))
        self.batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self.rows = pa.Table.from_batches(self.batches, reader.schema)
        sizes = {self.columns.shape[1], len(self.ids), self.rows.num_rows, stated["items"]}
        if len(sizes) > 1:
            raise ValueError(f"its files disagree on the number of items: {sorted(sizes)}")

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def first_id(self) -> int:
        """The least id."""
        return int(self.ids[0])

    def part(self, alive: NDArray[np.bool_] | None = None) -> Part:
        """Its items, or those that are alive."""
        if alive is None:
            return Part(self.columns, self.ids, self.rows)
        return Part(self.columns[:, alive], self.ids[alive], self.rows.filter(pa.array(alive)))

    def positions(self, ids: Ids) -> Ids:
        """Where ids stand; -1 for those that are not here."""
        found = np.searchsorted(self.ids, ids)
        found[found == len(self.ids)] = 0
        return np.where(self.ids[found] == ids, found, -1)

    def rows_at(self, positions: Ids) -> pa.Table:
        """Rows of some items, in the order of `positions`."""
        batch, within = np.divmod(positions, ROW_BATCH)
        order = np.argsort(batch, kind="stable")
        parts = [
            self.batches[each].take(pa.array(within[batch == each])) for each in np.unique(batch)
        ]
        table = pa.Table.from_batches(parts, self.rows.schema)
        return table.take(pa.array(np.argsort(order)))

    def packed(self, positions: Ids, code_bytes: int) -> Packed:
        """Packed codes of some items."""
        return as_packed(self.columns[:, positions], code_bytes)

    def faults(self) -> list[str]:
        """What differs from the files that were written, and what does not hold in them."""
        expected = dict(self.stated["files"])
        if "structure" in self.stated:
            expected[self.stated["structure"]["file"]] = self.stated["structure"]["digest"]
        found = []
        for name, digest in expected.items():
            path = self.folder / name
            if not path.is_file():
                found.append(f"{path}: missing")
            elif file_digest(path) != digest:
                found.append(f"{path}: its content changed since it was written")
        if not found and not (np.diff(self.ids) > 0).all():
            found.append(f"{self.folder}: its ids do not ascend")
        return found


def write_segment(folder: Path, parts: Sequence[Part]) -> dict[str, Any]:
    """Write the items of `parts`, whose ids ascend throughout, to a new folder, for good.

    Returns:
        What the manifest states of it: its items, and each file's digest.
    """
    folder.mkdir(parents=True)
    items = sum(len(part.ids) for part in parts)
    with atomic_path(folder / "codes.npy") as path:
        shape = (parts[0].columns.shape[0], items)
        codes = np.lib.format.open_memmap(path, "w+", np.uint64, shape)
        start = 0
        for part in parts:
            codes[:, start : start + len(part.ids)] = part.columns
            start += len(part.ids)
        codes.flush()
    with atomic_path(folder / "ids.npy") as path:
        np.save(path, np.concatenate([part.ids for part in parts]))
    with atomic_path(folder / "rows.arrow") as path:
        _write_rows(path, [part.rows for part in parts])
    sync_folder(folder)
    digests = {name: file_digest(folder / name) for name in FILES}
    return {"items": items, "files": digests}


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_rows(path: Path, tables: Sequence[pa.Table]) -> None:
    """One dictionary a column for all: the file format takes no second one."""
    stored = [table.select(SCHEMA.names).cast(_STORED) for table in tables]
    whole = pa.concat_tables(stored).unify_dictionaries()
    with pa.ipc.new_file(str(path), _STORED) as writer:
        for start in range(0, len(whole), ROW_BATCH):  # every batch but the last is full
            writer.write_table(whole.slice(start, ROW_BATCH).combine_chunks())


def load_array(path: Path, mapped: bool = True) -> NDArray[Any]:
    """An array of a .npy file, memory-mapped or read, as a plain one that numba takes."""
    with _HEADERS:
        return np.asarray(np.load(path, mmap_mode="r" if mapped else None))
