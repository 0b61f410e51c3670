"""One process a GPU, started by a plain `python main.py`."""

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from threading import RLock
from typing import Any

import torch
from torch import multiprocessing
from torch.multiprocessing import ProcessContext, ProcessExitedException
from tqdm import tqdm

from engine.config import RunConfig
from utils.distributed import started_world_size
from utils.errors import UserError
from utils.stop_signals import NUMBERS, SIGNALS, Stopped

LONGEST = 20_000  # characters of an error: more would not fit the pipe to the first process
GRACE = 10.0  # seconds that processes have to end after another has failed
STOPPING = 60.0  # seconds that they have to finish a step, validate and save after a signal
Failure = tuple[bool, str]  # whether it is the user's mistake, and what to print


def processes_to_start(config: RunConfig) -> int:
    """How many processes the config should run as: one a GPU, where its engine can use several.

    1 where this process is already one of several (torchrun's).
    """
    if "RANK" in os.environ or started_world_size() > 1 or config.training_opt.device == "cpu":
        return 1
    return max(1, torch.cuda.device_count()) if config.engine == "minibatch" else 1


def run_processes(count: int, work: Callable[..., None], *arguments: Any) -> None:
    """Run `work(*arguments)` in `count` processes that can join each other, and wait for them.

    The first one that fails ends the others. A signal is passed on to all; they have a minute to
    finish their step and to save, unless there comes another signal.

    Raises:
        Stopped: after a signal to this process or to one of them.
        UserError: the first one's, if that is what it raised.
        RuntimeError: for any other error, with the traceback, or if a process was killed.
    """
    context = multiprocessing.get_context("spawn")
    failures: SimpleQueue[tuple[int, Failure]] = context.SimpleQueue()
    fixed = (work, arguments, count, _free_port(), failures)
    processes = multiprocessing.start_processes(_enter, fixed, count, join=False)
    assert processes is not None
    try:
        with SIGNALS.handled():
            while not processes.join(grace_period=GRACE):
                pass
    except ProcessExitedException:
        raise _first_failure(failures, processes) from None
    except Stopped as stop:
        _pass_on(stop.number, processes)
        raise
    finally:
        _stop(processes)


def _enter(
    number: int,
    work: Callable[..., None],
    arguments: tuple[Any, ...],
    count: int,
    port: int,
    failures: "SimpleQueue[tuple[int, Failure]]",
) -> None:
    """What each process runs: `work`, with torchrun's variables in its environment."""
    for name in [name for name in os.environ if name.startswith("TORCHELASTIC_")]:
        del os.environ[name]  # of a torchrun above, whose store is not ours
    os.environ |= {
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # sent if the first process dies, not ignored
    tqdm.set_lock(RLock())  # its own, a semaphore of the system, would outlive an abrupt end
    status = 1
    try:
        with SIGNALS.handled():
            work(*arguments)
    except Stopped as stop:
        os._exit(stop.status)
    except UserError as error:
        failures.put((number, (True, str(error)[:LONGEST])))
    except Exception:
        failures.put((number, (False, traceback.format_exc()[-LONGEST:])))
    else:
        status = 0
    sys.stdout.flush()
    sys.stderr.flush()
    # An orderly exit would wait for the other processes after a failure, and gloo's threads, which
    # DistributedDataParallel keeps alive, may abort one after success.
    os._exit(status)


def _first_failure(
    failures: "SimpleQueue[tuple[int, Failure]]", processes: ProcessContext
) -> BaseException:
    """What went wrong first; a process that was killed cannot say so, and others then fail too."""
    codes = [process.exitcode for process in processes.processes]
    stops = {Stopped(each).status: each for each in NUMBERS}
    orderly = (0, 1, -signal.SIGTERM, *stops)
    killed = [number for number, code in enumerate(codes) if code not in orderly]
    if failures.empty() and not killed and not stops.keys().isdisjoint(codes):
        return Stopped(next(each for status, each in stops.items() if status in codes))
    if failures.empty() and not killed:  # ended by someone's SIGTERM
        killed = [number for number, code in enumerate(codes) if code != 0]
    if killed:
        number = killed[0]
        return RuntimeError(
            f"process {number} of the run ended with exit status {codes[number]} "
            f"({_signal_name(codes[number])}); the others were stopped"
        )
    number, (users, text) = failures.get()
    return UserError(text) if users else RuntimeError(f"process {number} failed:\n{text}")


def _signal_name(status: int | None) -> str:
    try:
        return f"killed by {signal.Signals(-(status or 0)).name}"
    except ValueError:
        return "no error was told"


def _pass_on(number: int, processes: ProcessContext) -> None:
    """Send a signal to all processes, and give them time to heed it."""
    for process in processes.processes:
        if process.is_alive():
            os.kill(process.pid, number)
    deadline = time.monotonic() + STOPPING
    for process in processes.processes:
        process.join(max(0.0, deadline - time.monotonic()))


def _stop(processes: ProcessContext) -> None:
    for process in processes.processes:
        process.terminate()
    for process in processes.processes:
        process.join(GRACE)
        process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
