"""The image files that a command is given: folders, files, lists of files."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.faults import shown
from data.image_file import readable_extensions
from utils.errors import UserError


@dataclass
class ImageFiles:
    """Image files in the order in which they are coded.

    root: the folder that names are paths from.
    rows: unique names, '/'-separated -> (size in bytes, time of change in ns).
    unusable: what is no file that could be read: name, which may be no UTF-8 -> why.
    """

    root: Path
    rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The files' names, in order."""
        return list(self.rows)

    def path(self, name: str) -> str:
        """Where a file lies."""
        return os.path.join(self.root, name)  # noqa: PTH118 - names are many


def list_images(given: Sequence[str], lists: Sequence[str] = ()) -> ImageFiles:
    """Image files of folders and their subfolders, files, and text files of one path a line.

    The names of a lone folder are paths in it, others are paths as given. In folders hidden files
    and files of other kinds are passed over, and a folder that links lead to twice is read once;
    what is named one by one is always taken.

    Raises:
        UserError: there is no such file or folder, or no image in them.
    """
    paths = [*given, *(line for each in lists for line in _lines(each))]
    absent = next((path for path in paths if not os.path.lexists(path)), None)
    if absent is not None:
        raise UserError(
            f"{shown(absent)}: no such file or folder; give images, or folders of images"
        )
    lone = len(paths) == 1 and Path(paths[0]).is_dir()
    files = ImageFiles(Path(paths[0]) if lone else Path())
    for path in paths:
        if Path(path).is_dir():
            prefix = "" if lone else path.rstrip("/") + "/"
            names: Iterable[str] = _in_folder(path, prefix, files.unusable)
        else:
            names = [path]
        for name in names:
            _add(files, name)
    if not files.names and not files.unusable:
        named = ", ".join(map(shown, paths[:3])) or "the list"
        raise UserError(f"{named}: no image file there")
    return files


def _add(files: ImageFiles, name: str) -> None:
    """Take a file unless it is there already, or note why it cannot be an image."""
    if name in files.rows:
        return
    try:
        name.encode()
        found = os.stat(files.path(name))  # noqa: PTH116
    except UnicodeEncodeError:
        files.unusable[name] = "its name is not UTF-8; rename it"
    except OSError as error:
        files.unusable[name] = error.strerror or str(error)
    else:
        if stat.S_ISREG(found.st_mode):
            files.rows[name] = (found.st_size, found.st_mtime_ns)
        else:
            files.unusable[name] = "it is no file"


def _in_folder(top: str, prefix: str, unusable: dict[str, str]) -> Iterator[str]:
    """Names of the image files in a folder, sorted, then those of each of its subfolders."""
    visited: set[tuple[int, int]] = set()

    def note(error: OSError) -> None:
        name = os.path.relpath(error.filename, top)
        unusable[prefix + name] = f"the folder cannot be read ({error.strerror})"

    for folder, folders, names in os.walk(top, followlinks=True, onerror=note):
        found = os.stat(folder)  # noqa: PTH116
        if (found.st_dev, found.st_ino) in visited:
            folders.clear()
            continue
        visited.add((found.st_dev, found.st_ino))
        folders[:] = sorted(name for name in folders if name[0] != ".")
        below = "" if folder == top else Path(folder).relative_to(top).as_posix() + "/"
        for name in sorted(names):
            ending = os.path.splitext(name)[1].lower()  # noqa: PTH122
            if name[0] != "." and ending in readable_extensions():
                yield prefix + below + name


def _lines(path: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"--list {shown(path)} cannot be read ({reason}); give UTF-8 text"
        ) from error
    return [line.strip() for line in lines if line.strip()]
