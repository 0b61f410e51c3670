"""One logger, to the terminal and to the run's log.txt."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from utils.distributed import is_main
from utils.errors import UserError

NAME = "long_tail_hashing"
_FORMAT = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")


def start_logging() -> logging.Logger:
    """Send the project's messages to the terminal; of several processes only rank 0 speaks."""
    logger = logging.getLogger(NAME)
    logger.setLevel(logging.INFO if is_main() else logging.ERROR)
    logger.propagate = False
    for old in [each for each in logger.handlers if type(each) is logging.StreamHandler]:
        logger.removeHandler(old)  # its terminal may have been replaced since
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMAT)
    logger.addHandler(handler)
    return logger


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Also append the messages to `path`, and keep them apart from progress bars.

    Raises:
        UserError: within the block, if a message cannot be written.
    """
    logger = logging.getLogger(NAME)
    handler = _RunHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    try:
        with logging_redirect_tqdm([logger]):
            yield
    finally:
        logger.removeHandler(handler)
        with suppress(OSError):  # of a message that was told to be lost
            handler.close()


class _RunHandler(logging.FileHandler):
    """Ends the run where logging would print a traceback for each message and go on."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        raise UserError(
            f"{self.baseFilename} cannot be written ({error.strerror}); free space there, "
            "then --resume"
        ) from error
