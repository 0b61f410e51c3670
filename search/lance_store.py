"""The store over LanceDB: tables of Lance's columnar format, on disk or object storage.

Lance keeps versions of its own: a write is a new version, which is there whole or not at all.
Table `images` holds ids, codes and rows; `issued` a row for each stretch of ids given out, which
is written before they are used, so that none is given twice. On object storage (a URI such as
s3://bucket/index) nothing keeps two writers apart: let one write.
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import BTree, IvfFlat
from numpy.typing import NDArray

from search.rows import SCHEMA, check_rows
from search.scan import nearest_of
from search.store import Coding, Hits, Ids, Index, Packed, Where, check_k, check_kind, no_such_id
from search.where import parse
from search.writer_lock import writing
from utils.errors import UserError

IMAGES, ISSUED = "images", "issued"
OFFERED = ("flat", "ivf")
PROBES = 16  # lists of an IVF index that a search looks into, by default
READERS = timedelta(hours=1)  # how long others may still read what was replaced
LEAST_INDEXED = 10_000  # fewer items get no IVF index
IDS_A_QUERY = 10_000  # in one IN (...)
_CODING = b"coding"  # of the schema's metadata


class LanceIndex(Index):
    """As `Index`, over the tables at `place`, a folder or URI.

    Raises:
        UserError: there are none, or they cannot be read.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        try:
            connection = lancedb.connect(place)
            self.images: Any = connection.open_table(IMAGES)
            self.issued: Any = connection.open_table(ISSUED)
            stored = json.loads(self.images.schema.metadata[_CODING])
        except (ValueError, OSError, RuntimeError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{place}: no index of the lance store here ({reason})") from None
        self.kind = stored.pop("kind")
        self.coding = Coding.from_dict(stored)

    @staticmethod
    def create(place: str, coding: Coding, kind: str = "flat") -> "LanceIndex":
        """A new, empty index in a new or empty folder.

        Raises:
            UserError: there is no such kind.
        """
        check_kind(kind, OFFERED, "lance")
        if "://" not in place:
            Path(place).mkdir(parents=True, exist_ok=True)
        connection = lancedb.connect(place)
        metadata = {_CODING: json.dumps({**coding.to_dict(), "kind": kind}).encode()}
        connection.create_table(
            ISSUED, schema=pa.schema([("first", pa.int64()), ("count", pa.int64())])
        )
        connection.create_table(IMAGES, schema=_schema(coding).with_metadata(metadata))
        return LanceIndex(place)

    def __len__(self) -> int:
        return self.images.count_rows()

    def add(self, codes: Packed, rows: pa.Table, model_digest: str | None = None) -> Ids:
        """As `Index.add`."""
        self.coding.check_model(model_digest)
        packed = self.coding.check_codes(codes)
        rows = check_rows(rows, len(packed))
        if not len(packed):
            return np.empty(0, np.int64)
        with self._writing():
            first = self._next_id()
            self.issued.add(pa.table({"first": [first], "count": [len(packed)]}))
            ids = np.arange(first, first + len(packed))
            columns = {"id": pa.array(ids), "code": _code_column(packed)}
            columns |= {name: rows[name] for name in SCHEMA.names}
            self.images.add(pa.table(columns, schema=_schema(self.coding)))
        return ids

    def remove(self, ids: Ids | Sequence[int]) -> int:
        """As `Index.remove`."""
        chosen = np.unique(np.asarray(ids, np.int64))
        with self._writing():
            self._fetch(chosen, ["id"])
            if len(chosen):
                self.images.delete(_among(chosen))
        return len(chosen)

    def search(
        self,
        codes: Packed,
        k: int,
        where: Where = None,
        *,
        model_digest: str | None = None,
        effort: int | None = None,
        exact: bool = False,
    ) -> Hits:
        """As `Index.search`.

        Lance returns any of those at the last distance: more are asked for until all that are
        nearer than the last, or equal to the k-th, are there.
        """
        check_k(k)
        self.coding.check_model(model_digest)
        packed = self.coding.check_codes(codes)
        condition = parse(where).sql() if where is not None else None
        if not len(packed):
            return Hits(np.empty((0, k), np.int64), np.empty((0, k), np.int32))
        found = [self._nearest(code, k, condition, effort, exact) for code in packed]
        nothing = np.full((1, k), -1)
        padded = [
            nearest_of([each, (nothing.astype(np.int64), nothing.astype(np.int32))], k)
            for each in found
        ]
        return Hits(*(np.concatenate(side) for side in zip(*padded, strict=True)))

    def rows(self, ids: Ids | Sequence[int]) -> pa.Table:
        """As `Index.rows`."""
        wanted = np.asarray(ids, np.int64)
        return self._fetch(wanted, ["id", *SCHEMA.names])

    def codes(self, ids: Ids | Sequence[int]) -> Packed:
        """As `Index.codes`."""
        column = self._fetch(np.asarray(ids, np.int64), ["id", "code"])["code"]
        flat = column.combine_chunks().flatten().to_numpy()
        return flat.reshape(-1, self.coding.code_bytes).copy()

    def select(self, where: Where = None, limit: int | None = None, offset: int = 0) -> Ids:
        """As `Index.select`."""
        query = self.images.search().select(["id"])
        if where is not None:
            query = query.where(parse(where).sql())
        ids = np.sort(query.to_arrow()["id"].to_numpy())
        return ids[offset : None if limit is None else offset + limit]

    def info(self) -> dict[str, Any]:
        """As `Index.info`."""
        indexed = self._indexed()
        return {
            "store": "lance",
            "kind": self.kind,
            "items": len(self),
            "removed": 0,
            "next_id": self._next_id(),
            "segments": self.images.stats()["fragment_stats"]["num_fragments"],
            "scanned_items": len(self) - indexed,
            "bytes": self.images.stats()["total_bytes"],
            "version": self.images.version,
            **self.coding.to_dict(),
        }

    def verify(self) -> list[str]:
        """As `Index.verify`."""
        self.refresh()
        try:
            table = self.images.search().select(["id", "code", *SCHEMA.names]).to_arrow()
        except (OSError, RuntimeError, ValueError) as error:
            return [f"{self.place}: cannot be read ({' '.join(str(error).split())[:300]})"]
        ids, faults = table["id"].to_numpy(), []
        if len(np.unique(ids)) < len(ids):
            faults.append(f"{self.place}: ids are there twice")
        if len(ids) and ids.max() >= self._next_id():
            faults.append(f"{self.place}: id {ids.max()} was never given out")
        if len(ids):
            codes = table["code"].combine_chunks().flatten().to_numpy()
            try:
                self.coding.check_codes(codes.reshape(len(ids), -1))
            except UserError as error:
                faults.append(f"{self.place}: {error}")
        return faults

    def compact(self, kind: str | None = None) -> None:
        """As `Index.compact`."""
        if kind not in (None, self.kind):
            raise UserError(
                f"the lance store settles the kind when an index is built, here {self.kind}; "
                f"build another with --kind {kind}"
            )
        with self._writing():
            for table in (self.images, self.issued):
                table.optimize(cleanup_older_than=READERS)
            if len(self) >= LEAST_INDEXED:
                self.images.create_index("id", config=BTree())
                if self.kind == "ivf":
                    lists = IvfFlat(distance_type="hamming", num_partitions=math.isqrt(len(self)))
                    self.images.create_index("code", config=lists)

    def refresh(self) -> bool:
        """As `Index.refresh`."""
        before = self.images.version
        self.images.checkout_latest()
        self.issued.checkout_latest()
        return self.images.version != before

    @contextmanager
    def _writing(self) -> Iterator[None]:
        local = "://" not in self.place
        with writing(Path(self.place)) if local else nullcontext():
            self.refresh()
            yield

    def _nearest(
        self, code: NDArray[np.uint8], k: int, where: Where, effort: int | None, exact: bool
    ) -> tuple[Ids, NDArray[np.int32]]:
        """Ids and distances (1, k or fewer) of one query."""
        limit = k + 1
        while True:
            query = self.images.search(code, vector_column_name="code").distance_type("hamming")
            query = query.select(["id", "_distance"]).limit(limit)
            if where is not None:
                query = query.where(where, prefilter=True)
            if exact or where is not None or self.kind == "flat":
                query = query.bypass_vector_index()
            else:
                query = query.nprobes(effort or PROBES)
            table = query.to_arrow()
            distances = table["_distance"].to_numpy().astype(np.int32)
            if len(distances) < limit or distances[-1] > distances[k - 1]:
                return nearest_of([(table["id"].to_numpy()[None], distances[None])], k)
            limit *= 4

    def _fetch(self, ids: Ids, columns: list[str]) -> pa.Table:
        """Columns of items in the order of `ids`; a UserError when one is not there."""
        parts = [self.images.schema.empty_table().select(columns)]
        unique = np.unique(ids)
        for start in range(0, len(unique), IDS_A_QUERY):
            some = unique[start : start + IDS_A_QUERY]
            parts.append(self.images.search().where(_among(some)).select(columns).to_arrow())
        table = pa.concat_tables(parts).sort_by("id")
        there = table["id"].to_numpy()
        if len(there) < len(unique):
            raise no_such_id(int(np.setdiff1d(unique, there)[0]))
        return table.take(pa.array(np.searchsorted(there, ids)))

    def _next_id(self) -> int:
        issued = self.issued.search().to_arrow()
        ends = issued["first"].to_numpy() + issued["count"].to_numpy()
        return int(ends.max(initial=0))

    def _indexed(self) -> int:
        for index in self.images.list_indices():
            if "code" in index.columns:
                return int(self.images.index_stats(index.name).num_indexed_rows)
        return 0


def _schema(coding: Coding) -> pa.Schema:
    codes = pa.field("code", pa.list_(pa.uint8(), coding.code_bytes))
    return pa.schema([("id", pa.int64()), codes, *SCHEMA])


def _code_column(packed: Packed) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(packed.reshape(-1)), packed.shape[1])


def _among(ids: Ids) -> str:
    return f"id IN ({', '.join(map(str, ids.tolist()))})"
