"""Where a cluster job's images lie: in files, or encoded in columns of tables.

The job lists them once, cuts the list into blocks, and lets workers take a block's images as
files, since that is what the encoder reads: so a picture in a table is coded as its file would be.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data.image_file import readable_extensions
from engine.image_list import ImageFiles
from search.cluster_storage import Storage
from utils.errors import UserError

KEYS = ("path", "size", "stamp")  # an image with other values of these has another code
LISTING = pa.schema(
    [
        ("path", pa.string()),  # unique
        ("size", pa.int64()),  # bytes of the file that holds the image
        ("stamp", pa.int64()),  # that file's time of change in ns, or where a data set has the row
        ("unit", pa.int32()),  # of a table: which stretch of its rows, that is read at once
        ("position", pa.int64()),  # in the unit
        ("label", pa.string()),  # null where folders' names tell it, or nothing does
        ("split", pa.string()),
    ]
)


@dataclass(frozen=True)
class Taken:
    """A block's images as files `root`/name, in its order; labels and splits that a table tells."""

    root: Path
    names: list[str]
    labels: list[str | None] | None
    splits: list[str | None] | None


class ImageSource(ABC):
    """Images that can be listed here and read by any worker; it is told to workers as it is."""

    place: str  # where the images are
    root = ""  # the folder that paths are relative to; empty where they are no files
    unusable: dict[str, str]  # what is listed nowhere, since it is no file: path -> why

    @abstractmethod
    def listing(self) -> pa.Table:
        """All images, in order (`LISTING`).

        Raises:
            UserError: there are none, a path is there twice, or they cannot be listed.
        """

    @abstractmethod
    def taken(self, block: pa.Table) -> AbstractContextManager[Taken]:
        """The images of a block, for a `with` statement.

        Raises:
            UserError: this machine does not see them.
        """

    def blocks(self, listing: pa.Table, size: int) -> Iterator[pa.Table]:
        """Cut a listing, or a part of it, into blocks of about so many images."""
        return (listing.slice(start, size) for start in range(0, len(listing), size))


class FileSource(ImageSource):
    """Image files in a folder that all machines see.

    Args:
        files: what was found; it is not told to workers, whose blocks name their files.
        texts: label and split of each file, where a table tells them.
    """

    def __init__(self, files: ImageFiles, texts: dict[str, list[str | None]] | None = None) -> None:
        self.place = self.root = str(files.root.resolve())
        self.unusable = files.unusable
        self.files, self.texts = files, texts or {}

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "texts": dict.fromkeys(self.texts)}

    def listing(self) -> pa.Table:
        """As `ImageSource.listing`."""
        rows = self.files.rows
        sizes, stamps = [size for size, _ in rows.values()], [stamp for _, stamp in rows.values()]
        return make_listing(list(rows), size=sizes, stamp=stamps, **self.texts)

    @contextmanager
    def taken(self, block: pa.Table) -> Iterator[Taken]:
        """As `ImageSource.taken`."""
        if not Path(self.root).is_dir():
            raise UserError(
                f"{self.root}: no such folder on {os.uname().nodename}; images must lie where "
                "every machine of the cluster sees them"
            )
        texts = {name: block[name].to_pylist() for name in self.texts}
        yield Taken(
            Path(self.root), block["path"].to_pylist(), texts.get("label"), texts.get("split")
        )


class ObjectSource(ImageSource):
    """Image files in object storage: those below a URI, whose names are paths from there."""

    def __init__(self, place: str) -> None:
        self.storage, self.unusable = Storage(place), {}
        self.place = self.storage.place

    def listing(self) -> pa.Table:
        """As `ImageSource.listing`."""
        found = [
            (self.storage.name(info), info)
            for info in self.storage.infos(recursive=True)
            if f".{info.extension.lower()}" in readable_extensions()
        ]
        if not found:
            raise UserError(f"{self.place}: no image file there")
        return make_listing(
            [name for name, _ in found],
            size=[info.size for _, info in found],
            stamp=[info.mtime_ns or 0 for _, info in found],
        )

    @contextmanager
    def taken(self, block: pa.Table) -> Iterator[Taken]:
        """As `ImageSource.taken`."""
        paths = block["path"].to_pylist()
        with written(self.storage.read(path) for path in paths) as (root, names):
            yield Taken(root, names, None, None)


@contextmanager
def written(images: Iterator[bytes | None]) -> Iterator[tuple[Path, list[str]]]:
    """Encoded images as files, one after another, that are gone when the block ends."""
    with TemporaryDirectory(prefix="images-") as folder:
        names = []
        for number, content in enumerate(images):
            names.append(f"{number:08d}")
            Path(folder, names[-1]).write_bytes(content or b"")
        yield Path(folder), names


def make_listing(paths: list[str] | pa.ChunkedArray, **columns: Any) -> pa.Table:
    """A table of `LISTING`; columns that are left out are null.

    Raises:
        UserError: a path is there twice, or is null.
    """
    arrays = {"path": pa.array(paths, pa.string()) if isinstance(paths, list) else paths}
    for field in LISTING.names[1:]:
        values = columns.get(field)
        kind = LISTING.field(field).type
        if isinstance(values, pa.ChunkedArray):
            arrays[field] = values
        else:
            arrays[field] = pa.nulls(len(paths), kind) if values is None else pa.array(values, kind)
    table = pa.table(arrays, schema=LISTING)
    if table["path"].null_count:
        raise UserError("images without a path or id are there; name another --id_column")
    if pc.count_distinct(table["path"]).as_py() < len(table):
        counts = pc.value_counts(table["path"])
        first = next(each for each in counts.to_pylist() if each["counts"] > 1)
        raise UserError(
            f"{first['values']!r} is there {first['counts']} times; images need paths or ids of "
            "their own: name another --id_column"
        )
    return table
