import os
import runpy
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import data.prefetch
from data.prefetch import one_ahead, prefetch, prefetch_on_gpu
from utils.errors import UserError


class Counted:
    """A generator that notes what was made of it, and by which thread."""

    def __init__(self, stop=None, error=None):
        self.made = []
        self.threads = set()
        self.closed = False
        self.stop, self.error = stop, error

    def __call__(self):
        try:
            while self.stop is None or len(self.made) < self.stop:
                self.threads.add(threading.current_thread())
                self.made.append(len(self.made))
                yield self.made[-1]
            if self.error:
                raise self.error
        finally:
            self.closed = True


def wait_until(condition):
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_all_items_come_in_order_from_one_other_thread():
    counted = Counted(stop=50)
    assert list(prefetch(counted())) == list(range(50))
    assert len(counted.threads) == 1 and threading.current_thread() not in counted.threads
    assert counted.closed and not threads()


def test_items_are_made_ahead_but_no_more_than_the_depth():
    counted = Counted()
    items = prefetch(counted(), depth=3)
    assert counted.made == [] and not threads()
    assert next(items) == 0
    wait_until(lambda: len(counted.made) == 4)
    time.sleep(0.05)
    assert len(counted.made) == 4
    items.close()


def test_an_early_stop_ends_both_of_two_threads_in_a_row():
    counted = Counted()

    def doubled(items):
        for item in items:
            yield 2 * item

    items = prefetch(doubled(prefetch(counted())))
    assert [next(items), next(items)] == [0, 2]
    assert len(threads()) == 2
    items.close()
    wait_until(lambda: not threads() and counted.closed)


def test_an_early_stop_ends_the_thread_and_closes_the_items():
    counted = Counted()
    items = prefetch(counted())
    for item in items:
        if item == 3:
            break
    assert threads()
    items.close()
    assert counted.closed and not threads()
    counted = Counted()
    items = prefetch(counted())
    next(items)
    del items
    assert counted.closed and not threads()


@pytest.mark.parametrize("error", [UserError("a broken file"), KeyError("k"), StopIteration()])
def test_an_error_comes_out_with_its_type_after_the_items_before_it(error):
    counted = Counted(stop=2, error=error)
    items = prefetch(counted())
    assert [next(items), next(items)] == [0, 1]
    expected = RuntimeError if isinstance(error, StopIteration) else type(error)
    with pytest.raises(expected) as found:
        next(items)
    assert found.value is error or expected is RuntimeError
    assert counted.closed and not threads()


def test_the_interpreter_exits_promptly_amid_the_items():
    code = (
        "import time\n"
        "from data.prefetch import prefetch\n"
        "def numbers():\n"
        "    try:\n"
        "        while True:\n"
        "            time.sleep(0.01)\n"
        "            yield 1\n"
        "    finally:\n"
        "        print('closed')\n"
        "items = prefetch(numbers())\n"
        "print(next(items))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "1\nclosed\n", "")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_of_the_side_stream_are_complete_and_not_overwritten():
    device = torch.device("cuda", 0)

    def slowly():
        for value in range(30):
            torch.cuda._sleep(2_000_000)
            yield torch.full((1 << 20,), float(value), device=device)

    total = torch.zeros((), device=device)
    for value, tensor in enumerate(prefetch_on_gpu(slowly(), device)):
        torch.cuda._sleep(4_000_000)
        total += (tensor != value).sum()
        del tensor
    assert total.item() == 0


class Stream:
    """Stands for a CUDA stream: notes what waits for it and what is done on it."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def wait_stream(self, other):
        self.log.append(f"{self.name} waits for {other.name}")

    def record_event(self):
        return len(self.log)

    def wait_event(self, event):
        self.log.append(f"{self.name} waits for {self.log[event - 1]}")


@pytest.fixture
def log(monkeypatch):
    """What two streams do, in their order, without a GPU."""
    events = []
    caller, side = Stream("caller", events), Stream("side", events)

    @contextmanager
    def on(stream):
        yield events.append(f"on {stream.name}")

    monkeypatch.setattr(data.prefetch, "stream_for", lambda device, purpose: side)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: caller)
    monkeypatch.setattr(torch.cuda, "stream", on)
    return events


def numbers(log, count):
    for number in range(count):
        log.append(f"make {number}")
        yield torch.tensor(number)


def test_one_is_made_beside_the_callers_work_on_the_one_before(log):
    for tensor in one_ahead(numbers(log, 2), torch.device("cpu")):
        log.append(f"use {int(tensor)}")
    make = ["side waits for caller", "on side"]
    assert log == [
        *[*make, "make 0", *make, "make 1", "caller waits for make 0", "use 0"],
        *[*make, "caller waits for make 1", "use 1", "caller waits for side"],
    ]


def test_a_caller_that_stops_early_waits_for_the_one_that_is_being_made(log):
    made = one_ahead(numbers(log, 9), torch.device("cpu"))
    next(made)
    made.close()
    assert log[-1] == "caller waits for side"
    assert [each for each in log if "make" in each][-2:] == ["make 1", "caller waits for make 0"]


def test_one_ahead_of_none_is_none(log):
    assert list(one_ahead(numbers(log, 0), torch.device("cpu"))) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_one_ahead_are_complete_not_overwritten_and_three_at_most():
    device, size = torch.device("cuda", 0), 1 << 20
    source = torch.arange(30.0, device=device)

    def slowly():
        for value in range(30):
            torch.cuda._sleep(2_000_000)
            yield source[value].expand(size).clone()

    list(one_ahead(slowly(), device))
    before = torch.cuda.memory_reserved(device)
    total = torch.zeros((), device=device)
    for value, tensor in enumerate(one_ahead(slowly(), device)):
        torch.cuda._sleep(4_000_000 if value % 2 else 1)
        total += (tensor != value).sum()
    assert total.item() == 0
    assert torch.cuda.memory_reserved(device) - before <= 3 * 4 * size + (20 << 20)


@pytest.mark.parametrize(("given", "expected"), [(None, "32"), ("4", "4")])
def test_each_stream_has_a_queue_unless_the_user_says_otherwise(monkeypatch, given, expected):
    name = "CUDA_DEVICE_MAX_CONNECTIONS"
    monkeypatch.delenv(name, raising=False)
    if given:
        monkeypatch.setenv(name, given)
    runpy.run_path(data.prefetch.__file__)
    assert os.environ[name] == expected
