"""What a module of the fault benchmark finds, in a process of its own."""

import importlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

GRACE = 10  # seconds that a process has to end by itself once it has answered


@dataclass(frozen=True)
class Finding:
    """How many faults of a kind were tried, and which of them were not borne as promised.

    failures: one line each; it names the fault so that it can be tried again.
    figures: what else is worth a column, by name.
    """

    name: str
    tried: int
    failures: list[str]
    seconds: float
    figures: dict[str, float | str] = field(default_factory=dict)


def find(module: str, count: int, seed: int, seconds: float) -> Finding:
    """Try `count` faults of a module, in a process of its own and for so many seconds at most."""
    name = module.rpartition(".")[2]
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    started = time.monotonic()
    process = context.Process(target=_find, args=(module, count, seed, folder, sender))
    try:
        process.start()
        sender.close()  # so that a death ends the wait
        if receiver.poll(max(0.0, seconds)):
            finding = receiver.recv()
            process.join(GRACE)
            return finding
        failure = f"not done after {seconds:.0f} s; raise --time_limit, or look for what hangs"
    except EOFError:
        process.join()
        failure = f"its process died ({_describe(process.exitcode)})"
    finally:
        _end(process)
        shutil.rmtree(folder, ignore_errors=True)
    return Finding(name, 0, [failure], time.monotonic() - started)


def _find(module: str, count: int, seed: int, folder: Path, sender: Connection) -> None:
    os.setpgrp()  # so that whatever it starts can be ended with it
    sender.send(importlib.import_module(module).run(count, seed, folder))


def _end(process: BaseProcess) -> None:
    """End the process, if it still runs, and whatever it started."""
    if process.pid is None:
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _describe(status: int | None) -> str:
    if status is not None and status < 0:
        return signal.Signals(-status).name
    return f"exit status {status}"
