"""When to save and to stop."""

import signal

import pytest

from engine import save_points
from engine.save_points import SavePoints, Verdict
from utils.stop_signals import SIGNALS, Stopped


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still, as a list of its one time."""
    now = [100.0]
    monkeypatch.setattr(save_points.time, "monotonic", lambda: now[0])
    return now


def test_a_save_is_due_three_quarters_of_a_minute_after_the_last(clock):
    points = SavePoints()
    clock[0] += 44
    assert points.after_step() == Verdict()
    clock[0] += 1
    assert points.after_step() == points.now() == Verdict(save=True)
    points.saved()
    assert points.after_step() == Verdict()


def test_a_signal_stops_at_the_next_step():
    points = SavePoints()
    with pytest.raises(Stopped), SIGNALS.handled(), SIGNALS.deferred():
        assert points.after_step() == Verdict()
        signal.raise_signal(signal.SIGTERM)
        assert points.after_step() == Verdict(stop=signal.SIGTERM)


class _Others:
    """What another process answers; counts how often it was asked."""

    def __init__(self, monkeypatch, rank, answer):
        self.asked, self.answer = [], answer
        monkeypatch.setattr(save_points.distributed, "world_size", lambda: 2)
        monkeypatch.setattr(save_points.distributed, "is_main", lambda: rank == 0)
        monkeypatch.setattr(save_points.distributed, "largest", self._largest)

    def _largest(self, values):
        self.asked.append(list(values))
        return [max(pair) for pair in zip(values, self.answer, strict=True)]


def test_several_processes_do_what_any_is_told_and_rank_0s_clock_says(monkeypatch, clock):
    others = _Others(monkeypatch, 1, [1, signal.SIGINT, 7])
    points = SavePoints()
    assert points.now() == Verdict(save=True, stop=signal.SIGINT)
    clock[0] += 1000
    points.now()
    assert [asked[0] for asked in others.asked] == [False, False]


@pytest.mark.parametrize(("seconds", "steps"), [(0.1, 5), (10.0, 1), (1e-4, 100)])
def test_they_ask_each_other_about_twice_a_second(monkeypatch, clock, seconds, steps):
    others = _Others(monkeypatch, 0, [0, 0, 0])
    points = SavePoints()
    for _ in range(1000):
        clock[0] += seconds
        points.after_step()
    assert len(others.asked) == pytest.approx(1000 / steps, rel=0.1)
