"""When a run in training saves its state, and when it stops."""

import time
from dataclasses import dataclass

from utils import distributed
from utils.stop_signals import SIGNALS

SAVE_SECONDS = 45.0  # between two saves: a crash costs less than a minute's work
ASK_SECONDS = 0.5  # between two times that processes ask each other
MOST_STEPS = 100  # between two such times


@dataclass(frozen=True)
class Verdict:
    """What is to be done now, by all processes."""

    save: bool = False
    stop: int = 0  # number of the signal that asks for it, 0 if none does


class SavePoints:
    """Asked after each step; one process looks at its clock and at the signals that have come.

    Several agree, or one would wait for the others for ever. They ask each other every few steps,
    as many as rank 0 takes half a second for, since each answer makes them wait for each other.
    """

    def __init__(self) -> None:
        self._saved = self._asked = time.monotonic()
        self._steps = self._steps_to_wait = 1
        self._several = distributed.world_size() > 1

    def after_step(self) -> Verdict:
        """What to do after a step of training."""
        if self._several:
            self._steps += 1
            if self._steps < self._steps_to_wait:
                return Verdict()
        return self.now()

    def now(self) -> Verdict:
        """What to do now, all processes asking at once."""
        time_of_asking = time.monotonic()
        save = distributed.is_main() and time_of_asking - self._saved >= SAVE_SECONDS
        if not self._several:
            return Verdict(save, SIGNALS.number)
        pace = max(time_of_asking - self._asked, 1e-6) / max(self._steps, 1)
        steps = min(MOST_STEPS, max(1, int(ASK_SECONDS / pace))) if distributed.is_main() else 0
        saves, stop, self._steps_to_wait = distributed.largest([save, SIGNALS.number, steps])
        self._steps, self._asked = 0, time.monotonic()
        return Verdict(bool(saves), stop)

    def saved(self) -> None:
        """Count from now on what a crash would cost."""
        self._saved = time.monotonic()
