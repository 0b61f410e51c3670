"""One writer at a time for a folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError

LOCK = "lock"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the folder's lock within a block; the system lets go of it when the process ends.

    Unlike `utils.folder_lock`, it also keeps apart the threads of one process.

    Raises:
        UserError: another writer holds it.
    """
    with (folder / LOCK).open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder}: another process is writing to this index; try again when it is done"
            ) from None
        yield
