"""Images in the columns of Parquet files and Lance data sets."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.image_list import ImageFiles
from search.cluster_sources import FileSource, ImageSource, Taken, make_listing, written
from search.cluster_storage import Storage
from utils.errors import UserError

IMAGE_COLUMNS = ("image", "img", "bytes", "path")  # the first that is there
ID_COLUMNS = ("path", "id", "name", "file_name")


@dataclass(frozen=True)
class Columns:
    """Which columns hold what; None: there is none, or the usual one is to be found."""

    image: str | None = None
    identity: str | None = None
    label: str | None = None
    split: str | None = None

    def found(self, schema: pa.Schema, place: str) -> "Columns":
        """The columns that a table has.

        Raises:
            UserError: one that is named is not there, or none holds images.
        """
        for name in (self.image, self.identity, self.label, self.split):
            if name is not None and name not in schema.names:
                raise UserError(f"{place} has no column {name!r}; it has {_names(schema)}")
        image = self.image or _first(IMAGE_COLUMNS, schema)
        if image is None or not (_holds_bytes(schema.field(image).type) or _is_text(schema, image)):
            raise UserError(
                f"{place}: no column of encoded images (bytes) or of their paths is known; name "
                f"it by --image_column, of {_names(schema)}"
            )
        identity = self.identity or _first([n for n in ID_COLUMNS if n != image], schema)
        label = self.label or _first(["label"], schema)
        split = self.split or _first(["split"], schema)
        found = Columns(image, identity, label, split)
        with _readable(place):
            found.texts(schema.empty_table())
        return found

    def texts(self, table: pa.Table) -> dict[str, list[str | None]]:
        """Label and split of rows, as texts, as far as there are columns of them."""
        named = {"label": self.label, "split": self.split}
        return {key: _texts(table[name]) for key, name in named.items() if name}

    def read(self, *, image: bool) -> list[str]:
        """The columns to read: images, labels and splits, or what a listing needs."""
        names = (self.image, self.label, self.split) if image else (self.identity,)
        return list(dict.fromkeys(name for name in names if name))


class ParquetSource(ImageSource):
    """Rows of Parquet files; a row group is read at once, and is the least that a worker takes.

    An image counts as changed when its file has another size or time of change.
    """

    def __init__(self, place: str, names: list[str], columns: Columns) -> None:
        self.storage, self.names, self.unusable = Storage(place), names, {}
        self.place = self.storage.place
        with _readable(self.storage.where(names[0])), self._open(0) as first:
            self.columns = columns.found(first.schema_arrow, self.storage.where(names[0]))
        self.groups: list[tuple[int, int]] = []  # unit -> file, row group

    def listing(self) -> pa.Table:
        """As `ImageSource.listing`."""
        infos = {self.storage.name(info): info for info in self.storage.infos(recursive=True)}
        parts: dict[str, list[Any]] = {name: [] for name in ("path", "size", "stamp", "unit", "at")}
        for number, name in enumerate(self.names):
            info = infos[name]
            with _readable(self.storage.where(name)), self._open(number) as file:
                self.columns.found(file.schema_arrow, self.storage.where(name))
                counts = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
                rows = sum(counts)
                parts["path"].append(self._ids(file, name, rows))
            units = np.arange(len(self.groups), len(self.groups) + len(counts))
            self.groups += [(number, group) for group in range(len(counts))]
            parts["unit"].append(np.repeat(units, counts))
            parts["at"].append(np.concatenate([np.arange(n) for n in counts] or [np.zeros(0)]))
            parts["size"].append(np.full(rows, info.size))
            parts["stamp"].append(np.full(rows, info.mtime_ns or 0))
        paths = pa.chunked_array(parts.pop("path"), pa.string())
        joined = {name: np.concatenate(each).astype(np.int64) for name, each in parts.items()}
        if not len(paths):
            raise UserError(f"{self.storage.where(self.names[0])}: no image there")
        position = joined.pop("at")
        return make_listing(paths, position=position, **joined)

    def blocks(self, listing: pa.Table, size: int) -> Iterator[pa.Table]:
        """As `ImageSource.blocks`, of whole row groups, as far as they are listed."""
        units = listing["unit"].to_numpy()
        ends = [*(np.flatnonzero(np.diff(units)) + 1).tolist(), len(units)]
        start = 0
        for end in ends:
            if end - start >= size or end == len(units):
                yield listing.slice(start, end - start)
                start = end

    @contextmanager
    def taken(self, block: pa.Table) -> Iterator[Taken]:
        """As `ImageSource.taken`."""
        texts: dict[str, list[str | None]] = {}

        def images() -> Iterator[bytes | None]:
            units, positions = block["unit"].to_numpy(), block["position"].to_numpy()
            for unit in np.unique(units):
                number, group = self.groups[unit]
                with _readable(self.storage.where(self.names[number])), self._open(number) as file:
                    rows = file.read_row_group(group, columns=self.columns.read(image=True))
                some = rows.take(pa.array(positions[units == unit]))
                for name, values in self.columns.texts(some).items():
                    texts.setdefault(name, []).extend(values)
                yield from _contents(some[self.columns.image])

        with written(images()) as (root, names):
            yield Taken(root, names, texts.get("label"), texts.get("split"))

    def _open(self, number: int) -> pq.ParquetFile:
        return pq.ParquetFile(self.storage.open(self.names[number]))

    def _ids(self, file: pq.ParquetFile, name: str, rows: int) -> pa.Array:
        column = self.columns.identity
        if column is None:  # the file and the row in it
            return pa.array([f"{name}:{row}" for row in range(rows)], pa.string())
        return file.read(columns=[column])[column].cast(pa.string()).combine_chunks()


class LanceSource(ImageSource):
    """Rows of a Lance data set, at the version that was the newest when it was listed.

    Lance writes a row that changes to another place, which no other row ever gets: so an image
    counts as changed when its row has moved, which compaction does too.
    """

    def __init__(self, place: str, columns: Columns) -> None:
        self.place, self.version, self.unusable = place, 0, {}
        table = self._open()
        self.version = table.version
        self.columns = columns.found(table.schema, place)
        if self.columns.identity is None:
            raise UserError(f"{place}: name the column that tells images apart by --id_column")

    def listing(self) -> pa.Table:
        """As `ImageSource.listing`."""
        columns = self.columns.read(image=False)
        rows = self._open().search().select(columns).with_row_id(True).to_arrow()
        if not len(rows):
            raise UserError(f"{self.place}: no image there")
        addresses = rows["_rowid"].cast(pa.int64())
        paths = rows[self.columns.identity].cast(pa.string())
        sizes = np.zeros(len(rows), np.int64)
        return make_listing(paths, size=sizes, stamp=addresses, position=addresses)

    @contextmanager
    def taken(self, block: pa.Table) -> Iterator[Taken]:
        """As `ImageSource.taken`."""
        wanted = block["position"].to_pylist()
        query = self._open().take_row_ids(wanted).select(self.columns.read(image=True))
        rows = query.with_row_id().to_arrow()
        places = {address: row for row, address in enumerate(rows["_rowid"].to_pylist())}
        rows = rows.take(pa.array([places[address] for address in wanted]))
        texts = self.columns.texts(rows)
        with written(_contents(rows[self.columns.image])) as (root, names):
            yield Taken(root, names, texts.get("label"), texts.get("split"))

    def _open(self) -> Any:
        import lancedb  # a second to import

        parent, _, name = self.place.rstrip("/").rpartition("/")
        with _readable(self.place):
            table = lancedb.connect(parent or ".").open_table(name.removesuffix(".lance"))
        if self.version:
            table.checkout(self.version)
        return table


def table_source(source: ParquetSource | LanceSource, image_root: str) -> ImageSource:
    """A table as a source: of its images, or where it holds paths of image files, of those.

    Args:
        image_root: the folder that such paths are relative to.

    Raises:
        UserError: paths are there twice.
    """
    columns = source.columns
    assert columns.image is not None
    place = source.place
    read = list(dict.fromkeys(n for n in (columns.image, columns.label, columns.split) if n))
    if isinstance(source, LanceSource):
        table = source._open()
        if not _is_text(table.schema, columns.image):
            return source
        rows = table.search().select(read).to_arrow()
    else:
        with _readable(place), source._open(0) as first:
            if not _is_text(first.schema_arrow, columns.image):
                return source
        parts = []
        for number, name in enumerate(source.names):
            with _readable(source.storage.where(name)), source._open(number) as file:
                parts.append(file.read(columns=read))
        rows = pa.concat_tables(parts, promote_options="permissive")
    return _listed_files(rows, columns, image_root, place)


def _listed_files(rows: pa.Table, columns: Columns, image_root: str, place: str) -> FileSource:
    """The image files whose paths a table's column holds."""
    files, kept = ImageFiles(Path(image_root).resolve()), []
    for row, path in enumerate(rows[columns.image].to_pylist()):
        if path in files.rows:
            raise UserError(f"{place}: {path!r} is there twice; name each image once")
        try:
            found = os.stat(files.path(path or ""))  # noqa: PTH116
        except OSError as error:
            files.unusable[str(path)] = error.strerror or str(error)
            continue
        if not stat.S_ISREG(found.st_mode):
            files.unusable[str(path)] = "it is no file"
            continue
        files.rows[path] = (found.st_size, found.st_mtime_ns)
        kept.append(row)
    return FileSource(files, columns.texts(rows.take(pa.array(kept, pa.int64()))))


@contextmanager
def _readable(place: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{place} cannot be read ({reason})") from None


def _contents(column: pa.ChunkedArray) -> Iterator[bytes | None]:
    """Encoded images of a column of bytes, or of a struct with bytes, as Hugging Face has it."""
    for value in column:
        content = value.as_py()
        yield content["bytes"] if isinstance(content, dict) else content


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    """Values as texts; those of a list joined by ';', as several labels are."""
    if pa.types.is_list(column.type):
        column = pc.binary_join(column.cast(pa.list_(pa.string())), ";")
    return column.cast(pa.string()).to_pylist()


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(schema: pa.Schema, name: str) -> bool:
    kind = schema.field(name).type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _first(names: Any, schema: pa.Schema) -> str | None:
    return next((name for name in names if name in schema.names), None)


def _names(schema: pa.Schema) -> str:
    return ", ".join(schema.names)
