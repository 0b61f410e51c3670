"""One logger, to the terminal and to the run's log.txt."""

import logging
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from utils.distributed import is_main
from utils.errors import UserError

NAME = "long_tail_hashing"
_FORMAT = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
MOST_KEPT = 1000  # messages from before a run's file is there


def start_logging() -> logging.Logger:
    """Send the project's messages to the terminal; of several processes only rank 0 speaks."""
    logger = logging.getLogger(NAME)
    logger.setLevel(logging.INFO if is_main() else logging.ERROR)
    logger.propagate = False
    for old in [each for each in logger.handlers if type(each) in (logging.StreamHandler, _Kept)]:
        logger.removeHandler(old)  # its terminal may have been replaced since
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMAT)
    logger.addHandler(handler)
    logger.addHandler(_Kept())
    return logger


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Also append the messages to `path`, and keep them apart from progress bars.

    Those since logging was started, or since the last file, come first: what data and weights were
    found to be.

    Raises:
        UserError: within the block, if a message cannot be written.
    """
    logger = logging.getLogger(NAME)
    handler = _RunHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    keeping = [each for each in logger.handlers if isinstance(each, _Kept)]
    try:
        for each in keeping:
            logger.removeHandler(each)
            each.hand_over(handler)
        with logging_redirect_tqdm([logger]):
            yield
    finally:
        logger.removeHandler(handler)
        for each in keeping:
            logger.addHandler(each)
        with suppress(OSError):  # of a message that was told to be lost
            handler.close()


class _Kept(logging.Handler):
    """Holds messages for the file that is opened next."""

    def __init__(self) -> None:
        super().__init__()
        self.records: deque[logging.LogRecord] = deque(maxlen=MOST_KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def hand_over(self, to: logging.Handler) -> None:
        while self.records:
            to.handle(self.records.popleft())


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
