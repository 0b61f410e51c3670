"""What the first signal does, and what the second."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from utils.stop_signals import SIGNALS, Stopped

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_process_with_its_usual_status(number, status):
    with pytest.raises(Stopped) as stop, SIGNALS.handled():
        signal.raise_signal(number)
    assert stop.value.status == status


def test_what_handles_errors_lets_it_pass():
    with pytest.raises(Stopped), SIGNALS.handled():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Exception:
            pytest.fail("taken for an error")


def test_where_it_is_deferred_the_block_goes_on_and_may_heed_it():
    done = []
    with pytest.raises(Stopped), SIGNALS.handled(), SIGNALS.deferred():
        signal.raise_signal(signal.SIGTERM)
        done.append(SIGNALS.number)
    assert done == [signal.SIGTERM]


def test_an_error_in_the_block_is_told_rather_than_the_signal():
    with pytest.raises(ZeroDivisionError), SIGNALS.handled(), SIGNALS.deferred():
        signal.raise_signal(signal.SIGTERM)
        raise ZeroDivisionError


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with SIGNALS.handled():
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] != before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_ignored_signal_stays_ignored():
    """As those of nohup and of a shell's background jobs are."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with SIGNALS.handled():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


SCRIPT = """
import signal, sys, time
from utils.stop_signals import SIGNALS
with SIGNALS.handled(), SIGNALS.deferred():
    signal.raise_signal(signal.SIGTERM)
    print("the step goes on", flush=True)
    time.sleep(float(sys.argv[1]))
    signal.raise_signal(signal.SIGTERM)
    print("one step more", flush=True)
"""


@pytest.mark.parametrize(
    ("processes", "wait", "ended"),
    [("1", "0", True), ("2", "0", False), ("2", "0.6", True)],
)
def test_the_second_ends_the_process_at_once_unless_a_launcher_repeats_it(processes, wait, ended):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, wait],
        cwd=PROJECT,
        env={**os.environ, "WORLD_SIZE": processes},
        capture_output=True,
        text=True,
    )
    assert "the step goes on" in done.stdout
    assert ("one step more" not in done.stdout) == ended
    assert (done.returncode == -signal.SIGTERM) == ended
    assert "SIGTERM: saving after this step" in done.stderr


@pytest.mark.parametrize("deferred", [True, False])
def test_a_forked_worker_outlives_the_first_signal_only_where_a_step_is_to_end(deferred):
    """Ctrl-C reaches the readers of images too, whose batches the step still needs."""

    def work():
        signal.raise_signal(signal.SIGINT)
        os._exit(7)

    with SIGNALS.handled():
        if deferred:
            with SIGNALS.deferred():
                child = os.fork() or work()
        else:
            child = os.fork() or work()
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == (7 if deferred else -signal.SIGINT)


def test_readers_outlive_a_sigterm_to_all_processes_so_that_the_step_can_end():
    """A cluster sends it to all; torch's own handler ends the readers, and with them the step."""
    loader = DataLoader(range(200), num_workers=2, worker_init_fn=SIGNALS.outlive_first)
    seen = []
    with pytest.raises(Stopped), SIGNALS.handled(), SIGNALS.deferred():
        batches = iter(loader)
        seen += [int(next(batches)) for _ in range(2)]  # one by each
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        seen += [int(batch) for batch in batches]
    assert seen == [*range(200)]


def test_readers_that_a_signal_ended_are_no_error():
    with pytest.raises(Stopped), SIGNALS.handled(), SIGNALS.deferred():
        signal.raise_signal(signal.SIGTERM)
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated.")
    with pytest.raises(RuntimeError), SIGNALS.handled(), SIGNALS.deferred():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
