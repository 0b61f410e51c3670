"""Files that appear whole or not at all."""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_PREFIX = ".tmp-"


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success rename it to `path`.

    A killed process leaves the old file or the new one, never half of one. Two writers at once
    are safe: the last to finish wins. The temporary name keeps the suffix of `path`, which some
    writers (numpy's, Pillow's) choose the format by.

    Raises:
        OSError: if the file cannot be written; it names `path`.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f"{_PREFIX}{uuid.uuid4().hex}{target.suffix}"
    try:
        # Not by tempfile: its mode 0600 would hide a shared run folder's files.
        temporary.touch(exist_ok=False)
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(target)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # a failed write names nothing
            error.filename, error.filename2 = str(target), None
        raise
    finally:
        with suppress(OSError):  # of a file system that has become read-only, as it was told
            temporary.unlink(missing_ok=True)


def remove_strays(folder: str | os.PathLike[str]) -> None:
    """Remove what killed writers left in a folder; nobody may be writing there."""
    for stray in Path(folder).glob(f"{_PREFIX}*"):
        stray.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write indented JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
