"""Codes in the making: each block of images is a part beside the output, until all are done.

A part is a Parquet file that is there whole or not at all, and its name tells its content: a
worker that does a block once more, since another died over it, writes the same file again. So
each image is in the output once, whoever coded it how often.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from search.cluster_output import CodesOutput, Stated, coded_schema, open_output
from search.cluster_sources import KEYS
from search.cluster_storage import Storage
from search.store import Packed
from utils.errors import UserError
from utils.folder_lock import locked

TRIES = "tries"  # a folder with a mark for each time that a part was begun
_UNREADABLE = b"unreadable"  # of a part's metadata: path -> why


class Parts:
    """The parts of an output, in a folder or under a URI that workers write to."""

    def __init__(self, output: str, stated: Stated) -> None:
        self.storage, self.stated = Storage(f"{output.rstrip('/')}.parts"), stated

    def name(self, block: pa.Table, first: int) -> str:
        """The part of a block, whose first image is the `first` of the listing."""
        digest = hashlib.sha256(json.dumps(self.stated.coding.model_digest).encode())
        for name in KEYS:
            digest.update(json.dumps(block[name].to_pylist()).encode())
        return f"part-{first:012d}-{digest.hexdigest()[:24]}.parquet"

    def write(
        self, name: str, block: pa.Table, codes: Packed, rows: pa.Table, unreadable: dict[str, str]
    ) -> None:
        """Write the codes (n, bytes) and rows of a block's readable images (`KEYS`)."""
        schema = coded_schema(self.stated.coding.code_bytes)
        metadata = {**self.stated.to_metadata(), _UNREADABLE: json.dumps(unreadable).encode()}
        packed = pa.FixedSizeBinaryArray.from_buffers(
            schema.field("code").type, len(codes), [None, pa.py_buffer(codes.tobytes())]
        )
        columns = {each: rows[each] for each in rows.column_names if each != "path"}
        columns |= {each: block[each] for each in KEYS}
        table = pa.table({**columns, "code": packed}).select(schema.names).cast(schema)
        with self.storage.writing(name) as stream:
            pq.write_table(table.replace_schema_metadata(metadata), stream)

    def begun(self, name: str) -> int:
        """Mark that a part is begun; returns how often it was before, by workers that died."""
        times = 0
        while self.storage.exists(f"{TRIES}/{name}.{times}"):
            times += 1
        with self.storage.writing(f"{TRIES}/{name}.{times}") as stream:
            stream.write(f"{os.uname().nodename} {os.getpid()}".encode())
        return times

    def unreadable(self, name: str) -> dict[str, str] | None:
        """Path → why, of a part's images that could not be read; None where no part is there."""
        if not self.storage.exists(name):
            return None
        with self.storage.open(name) as stream:
            return json.loads(pq.read_schema(stream).metadata[_UNREADABLE])

    def keys(self) -> pa.Table:
        """`KEYS` of all parts' rows, in the order of `tables`.

        Raises:
            UserError: a part was made otherwise.
        """
        parts = [pa.schema([("path", pa.string()), ("size", pa.int64()), ("stamp", pa.int64())])
                 .empty_table()]  # fmt: skip
        for name in self.storage.names(".parquet"):
            with self.storage.open(name) as stream:
                found = pq.read_table(stream, columns=list(KEYS))
            self.stated.check_same(Stated.of(found.schema, name), self.storage.place)
            parts.append(found.replace_schema_metadata(None))
        return pa.concat_tables(parts)

    def tables(self, chosen: NDArray[np.int64]) -> Iterator[pa.Table]:
        """Some rows, by ascending numbers, part by part."""
        start = 0
        for name in self.storage.names(".parquet"):
            with self.storage.open(name) as stream:
                table = pq.read_table(stream).replace_schema_metadata(None)
            first, last = np.searchsorted(chosen, [start, start + len(table)])
            yield table.take(pa.array(chosen[first:last] - start))
            start += len(table)


class Codes:
    """An output with its parts, brought up to date with a listing.

    Raises:
        UserError: the output cannot be read, or is something else.
    """

    def __init__(self, place: str, stated: Stated) -> None:
        self.place, self.stated = place, stated
        self.output: CodesOutput = open_output(place)
        self.parts = Parts(place, stated)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Keep other commands from writing, within a block.

        Raises:
            UserError: there are codes of another model or other images, the output is something
                else, another command is at it, or it cannot be written.
        """
        before = self.output.stated()
        if before is not None:
            self.stated.check_same(before, self.place)
        storage = self.parts.storage
        with ExitStack() as stack:
            if storage.local:
                stack.enter_context(self._locked(Path(storage.base)))
            Storage(storage.where(TRIES)).remove_all()
            try:
                yield
            finally:
                if not storage.names(".parquet"):
                    storage.remove_all()

    def missing(self, listing: pa.Table) -> NDArray[np.int64]:
        """Rows of a listing, ascending, that neither output nor parts hold."""
        there = _places(listing, self.output.keys()) >= 0
        there |= _places(listing, self.parts.keys()) >= 0
        return np.flatnonzero(~there)

    def finish(self, listing: pa.Table) -> int:
        """Make the output hold what is listed and coded, and nothing else; returns how many.

        Raises:
            UserError: it cannot be written.
        """
        with self._writing():
            held, coded = self.output.keys(), self.parts.keys()
            gone = np.flatnonzero(_places(held, listing) < 0)
            rest = listing.filter(pa.array(_places(listing, held) < 0))
            places = _places(coded, rest)
            listed, first = np.unique(places, return_index=True)  # the first part of several
            new = np.sort(first[listed >= 0])
            if len(gone) or len(new):
                self.output.update(self.stated, held, gone, self.parts.tables(new))
            self.output.sweep()
            self.parts.storage.remove_all()
        return len(held) - len(gone) + len(new)

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        with self._writing(), ExitStack() as stack:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(locked(folder))
            except UserError as error:
                raise UserError(
                    f"{self.place} is being written by another command; wait for it, or choose "
                    "another --output"
                ) from error
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or " ".join(str(error).split())
            raise UserError(
                f"{self.place} cannot be written ({reason}); what is coded so far is kept: make "
                "room there, and the same command goes on"
            ) from error


def _places(table: pa.Table, other: pa.Table) -> NDArray[np.int64]:
    """For each row of `table` the row of `other` with the same `KEYS`, or -1.

    Of rows of `other` with one path the first alone is looked at.
    """
    found = pc.index_in(table["path"], value_set=other["path"])
    places = pc.fill_null(found, -1).to_numpy().astype(np.int64)
    if len(other):
        for name in KEYS[1:]:
            same = table[name].to_numpy() == other[name].to_numpy()[places]
            places[~same] = -1
    return places
