"""A limit on the time that one try of a fault may take."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class TooSlow(BaseException):
    """No part of the project may catch it."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TooSlow in a block that takes more than `seconds`; for the main thread."""

    def stop(number: int, frame: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
