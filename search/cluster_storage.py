"""Files that all machines of a cluster see: in a shared folder, or objects in a bucket (a URI)."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem

from utils.atomic_file import atomic_path, remove_strays
from utils.errors import UserError


class Storage:
    """A folder of files, which may be told to other processes.

    Args:
        place: a path, or a URI such as s3://bucket/folder.

    Raises:
        UserError: the URI is of no known kind, or its service refuses.
    """

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/") if "://" in place else str(Path(place).resolve())
        try:
            self.system, self.base = FileSystem.from_uri(self.place)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{place}: {' '.join(str(error).split())}") from None
        self.local = isinstance(self.system, LocalFileSystem)

    def __reduce__(self) -> tuple[Any, ...]:
        return Storage, (self.place,)

    def where(self, name: str) -> str:
        """The place of a file, as messages and users have it."""
        return f"{self.place}/{name}" if name else self.place

    def infos(self, suffix: str = "", recursive: bool = False) -> list[FileInfo]:
        """The files whose names end so, sorted by their paths; none of no folder, none hidden."""
        selector = FileSelector(self.base, allow_not_found=True, recursive=recursive)
        files = [i for i in self.system.get_file_info(selector) if i.type == FileType.File]
        found = [
            info
            for info in files
            if info.path.endswith(suffix) and "/." not in "/" + self.name(info)
        ]
        return sorted(found, key=lambda info: info.path)

    def names(self, suffix: str = "", recursive: bool = False) -> list[str]:
        """Names of those files, relative to the folder."""
        return [self.name(info) for info in self.infos(suffix, recursive)]

    def name(self, info: FileInfo) -> str:
        """A file's name relative to the folder."""
        return info.path[len(self.base) + 1 :]

    def is_file(self) -> bool:
        """Whether a file is where the folder should be."""
        return self.system.get_file_info(self.base).type == FileType.File

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return self.system.get_file_info(f"{self.base}/{name}").type == FileType.File

    def open(self, name: str) -> pa.NativeFile:
        """A file to read from; FileNotFoundError where there is none."""
        return self.system.open_input_file(f"{self.base}/{name}")

    def read(self, name: str) -> bytes:
        """All of a file."""
        with self.open(name) as stream:
            return stream.read()

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A stream whose content is under `name` once the block ends well, whole or not at all."""
        if self.local:
            with atomic_path(f"{self.base}/{name}") as temporary, temporary.open("wb") as stream:
                yield stream
            return
        # An object appears when its stream is closed, even by an error: so not before all is there.
        whole = io.BytesIO()
        yield whole
        with self.system.open_output_stream(f"{self.base}/{name}") as upload:
            upload.write(whole.getbuffer())

    def sweep(self) -> None:
        """Remove what writers that died left; nobody may be writing."""
        if self.local:
            remove_strays(self.base)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        if self.exists(name):
            self.system.delete_file(f"{self.base}/{name}")

    def remove_all(self) -> None:
        """Remove the folder with all in it, if it is there."""
        if self.system.get_file_info(self.base).type == FileType.Directory:
            self.system.delete_dir(self.base)
