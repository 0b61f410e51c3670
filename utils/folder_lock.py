"""A folder that one process at a time writes to."""

import errno
import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError

LOCK = ".lock"
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # some network file systems
logger = logging.getLogger("long_tail_hashing")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder within a block; the system lets go of it however the process ends.

    The lock is the process's own: children that it forks neither have it nor keep it.

    Raises:
        UserError: if another process holds the folder.
        OSError: if the folder cannot be written.
    """
    with (folder / LOCK).open("a") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise UserError(
                f"{folder} is in use by another run; wait for it or stop it, or choose another "
                "training_opt.log_dir"
            ) from error
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
            logger.warning("%s cannot be locked: take care that one run at a time uses it", folder)
        yield


def check_unlocked(folder: Path) -> None:
    """Raise a UserError if another process holds a folder, which need not exist."""
    if (folder / LOCK).exists():
        with locked(folder):
            pass
