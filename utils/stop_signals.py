"""SIGINT and SIGTERM end the process: at once, or in training after a step that is then saved."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

NUMBERS = (signal.SIGINT, signal.SIGTERM)
REPEATED = 0.5  # seconds: launchers pass on to their processes what these have got themselves


class Stopped(BaseException):
    """A signal asks the process to end.

    Not an Exception, as KeyboardInterrupt is none: what handles errors must let it pass.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def status(self) -> int:
        """The exit status that shells give a process which the signal ended."""
        return 128 + self.number


class StopSignals:
    """Raises `Stopped` at a signal; within `deferred` keeps the first one's `number` instead.

    Another one after it ends the process as if nothing handled it.
    """

    def __init__(self) -> None:
        self.number = 0  # of the signal that came, 0 before
        self._came = 0.0
        self._deferring = False
        self._process = 0

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals within a block, in the main thread; ignored ones stay ignored."""
        self.number, self._process = 0, os.getpid()
        before = {number: signal.getsignal(number) for number in NUMBERS}
        heard = [number for number in NUMBERS if before[number] != signal.SIG_IGN]
        for number in heard:
            signal.signal(number, self._receive)
        try:
            yield
        finally:
            for number in heard:
                signal.signal(number, before[number] or signal.SIG_DFL)
            self.number = 0

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let what runs within a block decide when to stop, by `number`.

        Raises:
            Stopped: at the end of the block, if a signal came that nothing heeded; before it, if
                the signal ended readers of images, without which the step cannot end.
        """
        self.number, self._deferring = 0, True
        try:
            yield
        except RuntimeError as error:
            if self.number and "DataLoader worker" in str(error):
                raise Stopped(self.number) from error
            raise
        finally:
            self._deferring = False
        if self.number:
            raise Stopped(self.number)

    def outlive_first(self, worker: int) -> None:
        """For a DataLoader's `worker_init_fn`: torch's handler would end the worker at SIGTERM.

        Whoever ends a run of several processes sends it to all of them, also to the readers of
        images whose batches the step still needs.
        """
        if signal.getsignal(signal.SIGINT) == self._receive:  # handled before the fork
            signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, number: int, frame: object) -> None:
        forked = os.getpid() != self._process  # a worker, which ends with its parent
        if self.number:
            several = os.environ.get("WORLD_SIZE", "1") != "1"
            if not several or time.monotonic() - self._came > REPEATED:
                _die(number)
            return
        self.number, self._came = number, time.monotonic()
        if self._deferring:
            if not forked and os.environ.get("RANK", "0") == "0":
                name = signal.Signals(number).name
                # Not by print, which may have been interrupted in the middle of a line.
                os.write(2, f"\n{name}: saving after this step; once more stops at once\n".encode())
        elif forked:
            _die(number)
        else:
            raise Stopped(number)


def _die(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


SIGNALS = StopSignals()  # there is one set of handlers in a process
