"""One logger, to the terminal and to the run's log.txt."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from utils.distributed import is_main

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
    """Also append the messages to `path`, and keep them apart from progress bars."""
    logger = logging.getLogger(NAME)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    try:
        with logging_redirect_tqdm([logger]):
            yield
    finally:
        logger.removeHandler(handler)
        handler.close()
