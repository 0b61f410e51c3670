"""What a cluster job writes: a folder of Parquet files or a Lance data set, with a row an image.

Both hold `coded_schema`'s columns and, in their schema's metadata, what made the codes. A folder of
Parquet files has a manifest beside them, `_manifest.json`, which other readers pass over for its
name; only files that it names count, and it is replaced as a whole.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from search.cluster_sources import KEYS
from search.cluster_storage import Storage
from search.rows import SCHEMA
from search.store import Coding, Packed
from utils.errors import UserError

LANCE = ".lance"
MANIFEST = "_manifest.json"
FORMAT = 1
FILE_ROWS = 1 << 20
PATHS_A_QUERY = 1000  # in one IN (...)
_STATED = b"coded_by"  # of the schema's metadata


@dataclass(frozen=True)
class Stated:
    """What made codes: the coding, and what else decides them (`engine.coder.made_with`)."""

    coding: Coding
    made_with: dict[str, Any]

    def to_metadata(self) -> dict[bytes, bytes]:
        """For a schema."""
        values = {"format": FORMAT, "coding": self.coding.to_dict(), "made_with": self.made_with}
        return {_STATED: json.dumps(values).encode()}

    @staticmethod
    def of(schema: pa.Schema, place: str) -> "Stated":
        """What a schema states.

        Raises:
            UserError: nothing, or what another version wrote.
        """
        try:
            values = json.loads((schema.metadata or {})[_STATED])
            if values["format"] != FORMAT:
                raise UserError(f"{place}: of another version; code the images again")
            return Stated(Coding.from_dict(values["coding"]), values["made_with"])
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"{place} holds no codes as python -m search.cluster writes them ({error!r})"
            ) from None

    def check_same(self, other: "Stated", place: str) -> None:
        """Refuse codes at `place` that were made otherwise: they may have taken days.

        Raises:
            UserError: they differ.
        """
        for name, theirs, ours in self.differences(other):
            raise UserError(
                f"{place} holds codes of another {name} ({theirs}, now {ours}); remove it, or "
                "choose another --output"
            )

    def differences(self, other: "Stated") -> Iterator[tuple[str, Any, Any]]:
        """What decides a code and differs: its name, theirs and ours."""
        ours, theirs = self._deciding(), other._deciding()
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                yield name, theirs.get(name), ours.get(name)

    def _deciding(self) -> dict[str, Any]:
        model, length = self.coding.model_digest[:12], self.coding.code_length
        return {"model": model, "code length": length, **self.made_with}


def coded_schema(code_bytes: int) -> pa.Schema:
    """A row an image: path (or id), packed code, label, split, width, height, size, stamp."""
    fields = [SCHEMA.field("path"), pa.field("code", pa.binary(code_bytes))]
    fields += [field for field in SCHEMA if field.name != "path"]
    return pa.schema([*fields, ("size", pa.int64()), ("stamp", pa.int64())])


def packed_codes(table: pa.Table) -> Packed:
    """The codes (n, bytes) of a table's rows."""
    column = table["code"].combine_chunks()
    width = column.type.byte_width
    flat = np.frombuffer(column.buffers()[1], np.uint8)
    first = column.offset * width
    return flat[first : first + len(column) * width].reshape(-1, width)


class CodesOutput(ABC):
    """Codes that are brought up to date in place; readers see the state before or after."""

    @abstractmethod
    def stated(self) -> Stated | None:
        """What made the codes; None where nothing is there yet.

        Raises:
            UserError: something else is there.
        """

    @abstractmethod
    def keys(self) -> pa.Table:
        """`KEYS` of all rows; further columns say where each is."""

    @abstractmethod
    def update(
        self, stated: Stated, keys: pa.Table, gone: NDArray[np.int64], new: Iterable[pa.Table]
    ) -> None:
        """Leave out the rows `gone` of `keys`, which `keys()` gave, and append `new` ones."""

    def sweep(self) -> None:  # noqa: B027 - Lance keeps its own house
        """Remove what no longer counts, and what a killed update left."""

    @abstractmethod
    def tables(self) -> Iterator[pa.Table]:
        """All rows, in order."""


class ParquetCodes(CodesOutput):
    """A folder of Parquet files."""

    def __init__(self, place: str) -> None:
        self.storage = Storage(place)

    def stated(self) -> Stated | None:
        """As `CodesOutput.stated`."""
        names = self._manifest()["files"]
        there = self.storage.is_file() or bool(self.storage.infos())
        if there and not self.storage.exists(MANIFEST):
            raise UserError(
                f"{self.storage.place} is there already and holds no codes of images; choose "
                "another --output"
            )
        return Stated.of(self._schema(names[0]), self.storage.place) if names else None

    def keys(self) -> pa.Table:
        """As `CodesOutput.keys`: the number of the file, and of the row in it."""
        parts = [_no_keys()]
        for number, name in enumerate(self._manifest()["files"]):
            with self.storage.open(name) as stream:
                keys = pq.read_table(stream, columns=list(KEYS))
            file, row = np.full(len(keys), number), np.arange(len(keys))
            parts.append(_located(keys.replace_schema_metadata(None), file, row))
        return pa.concat_tables(parts)

    def update(
        self, stated: Stated, keys: pa.Table, gone: NDArray[np.int64], new: Iterable[pa.Table]
    ) -> None:
        """As `CodesOutput.update`: files with rows that go are written anew without them."""
        manifest = self._manifest()
        version, names = manifest["version"] + 1, manifest["files"]
        files, rows = keys["file"].to_numpy()[gone], keys["row"].to_numpy()[gone]
        touched = set(np.unique(files).tolist())

        def left() -> Iterator[pa.Table]:
            for number in sorted(touched):
                table = self._table(names[number])
                yield table.take(np.setdiff1d(np.arange(len(table)), rows[files == number]))
            yield from new

        kept = [name for number, name in enumerate(names) if number not in touched]
        for number, table in enumerate(_resized(left(), FILE_ROWS)):
            name = f"codes-{version:06d}-{number:06d}.parquet"
            with self.storage.writing(name) as stream:
                pq.write_table(table.replace_schema_metadata(stated.to_metadata()), stream)
            kept.append(name)
        values = {"format": FORMAT, "version": version, "files": kept}
        with self.storage.writing(MANIFEST) as stream:
            stream.write(json.dumps(values, indent=1).encode())

    def sweep(self) -> None:
        """As `CodesOutput.sweep`."""
        for name in set(self.storage.names(".parquet")) - set(self._manifest()["files"]):
            self.storage.remove(name)
        self.storage.sweep()

    def tables(self) -> Iterator[pa.Table]:
        """As `CodesOutput.tables`."""
        return (self._table(name) for name in self._manifest()["files"])

    def _manifest(self) -> dict[str, Any]:
        if not self.storage.exists(MANIFEST):
            return {"version": 0, "files": []}
        try:
            values = json.loads(self.storage.read(MANIFEST))
            return {"version": int(values["version"]), "files": list(values["files"])}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.storage.where(MANIFEST)}: damaged ({error})") from None

    def _table(self, name: str) -> pa.Table:
        with self._reading(name) as stream:
            return pq.read_table(stream)

    def _schema(self, name: str) -> pa.Schema:
        with self._reading(name) as stream:
            return pq.read_schema(stream)

    def _reading(self, name: str) -> pa.NativeFile:
        try:
            return self.storage.open(name)
        except OSError as error:
            raise UserError(f"{self.storage.where(name)}: missing ({error})") from None


class LanceCodes(CodesOutput):
    """A Lance data set, in which codes are fixed lists of bytes, that LanceDB searches."""

    def __init__(self, place: str) -> None:
        import lancedb  # a second to import

        self.place = place.rstrip("/")
        parent, _, name = self.place.rpartition("/")
        self.connection, self.name = lancedb.connect(parent or "."), name.removesuffix(LANCE)

    def stated(self) -> Stated | None:
        """As `CodesOutput.stated`."""
        table = self._open()
        return None if table is None else Stated.of(table.schema, self.place)

    def keys(self) -> pa.Table:
        """As `CodesOutput.keys`."""
        table = self._open()
        if table is None:
            return _no_keys()
        keys = table.search().select(list(KEYS)).to_arrow()
        return _located(keys, np.zeros(len(keys)), np.arange(len(keys)))

    def update(
        self, stated: Stated, keys: pa.Table, gone: NDArray[np.int64], new: Iterable[pa.Table]
    ) -> None:
        """As `CodesOutput.update`, in two versions: without the rows that go, with the new ones."""
        schema = _lance_schema(stated)
        batches = (batch for table in new for batch in _as_lists(table, schema).to_batches())
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        table = self._open()
        if table is None:
            self.connection.create_table(self.name, data=reader, schema=schema)
            return
        paths = keys["path"].take(pa.array(gone)).to_pylist()
        for start in range(0, len(paths), PATHS_A_QUERY):
            quoted = [path.replace("'", "''") for path in paths[start : start + PATHS_A_QUERY]]
            table.delete("path IN ('" + "', '".join(quoted) + "')")
        table.add(reader)

    def tables(self) -> Iterator[pa.Table]:
        """As `CodesOutput.tables`."""
        table = self._open()
        assert table is not None
        coding = Stated.of(table.schema, self.place).coding
        schema = coded_schema(coding.code_bytes)
        batches = table.search().to_batches(batch_size=FILE_ROWS)
        for found in _resized((pa.table(batch) for batch in batches), FILE_ROWS):
            flat = found["code"].combine_chunks().flatten().to_numpy()
            codes = pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(coding.code_bytes), len(found), [None, pa.py_buffer(flat.tobytes())]
            )
            columns = {name: found[name] for name in schema.names if name != "code"}
            yield pa.table({**columns, "code": codes}).select(schema.names).cast(schema)

    def _open(self) -> Any:
        try:
            return self.connection.open_table(self.name)
        except (ValueError, RuntimeError, OSError) as error:
            if "not found" in str(error).lower():
                return None
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{self.place} cannot be read ({reason})") from None


def is_output(place: str) -> bool:
    """Whether a cluster job's codes may be there."""
    if place.rstrip("/").endswith(LANCE):
        return True
    return ("://" in place or Path(place).is_dir()) and Storage(place).exists(MANIFEST)


def open_output(place: str) -> CodesOutput:
    """The output that a name asks for: a Lance data set where it ends in .lance."""
    return LanceCodes(place) if place.rstrip("/").endswith(LANCE) else ParquetCodes(place)


def _lance_schema(stated: Stated) -> pa.Schema:
    width = stated.coding.code_bytes
    fields = [
        pa.field("code", pa.list_(pa.uint8(), width)) if field.name == "code" else field
        for field in coded_schema(width)
    ]
    return pa.schema(fields, metadata=stated.to_metadata())


def _as_lists(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows with their codes as fixed lists."""
    packed = packed_codes(table)
    codes = pa.FixedSizeListArray.from_arrays(pa.array(packed.reshape(-1)), packed.shape[1])
    place = table.schema.get_field_index("code")
    columns = table.set_column(place, schema.field("code"), codes)
    return columns.replace_schema_metadata(schema.metadata).cast(schema)


def _located(keys: pa.Table, file: NDArray[Any], row: NDArray[Any]) -> pa.Table:
    keys = keys.append_column("file", pa.array(file.astype(np.int64)))
    return keys.append_column("row", pa.array(row.astype(np.int64)))


def _no_keys() -> pa.Table:
    fields = [("path", pa.string()), *((name, pa.int64()) for name in ("size", "stamp"))]
    return pa.schema([*fields, ("file", pa.int64()), ("row", pa.int64())]).empty_table()


def _resized(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of so many each, the last one of fewer."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= rows:
            whole = pa.concat_tables(held)
            full = len(whole) // rows * rows
            yield from (whole.slice(start, rows) for start in range(0, full, rows))
            held = [whole.slice(full)]
    if sum(map(len, held)):
        yield pa.concat_tables(held)
