"""Run commands of one queue on several devices, until they are done or the time is up."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

POLL = 0.1  # seconds
GRACE = 10.0  # seconds that a run has to end when it is told to


@dataclass(frozen=True)
class Job:
    """Python commands that run one after another, on one device.

    kind: jobs of one kind last about equally long. log: name of the file of their output.
    """

    name: str
    kind: tuple[str, ...]
    commands: list[list[str]]
    log: str


@dataclass(frozen=True)
class Ended:
    """A job that ran. status: of the last command's exit; None where the time was up."""

    job: Job
    seconds: float
    status: int | None


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    started: float
    next_command: int = 1


@dataclass
class JobQueue:
    """Jobs in the order in which they start.

    devices: a value of CUDA_VISIBLE_DEVICES for each job that runs at a time.
    time_limit: seconds from `run`; no job starts that would likely end later, judged by the
        last of its kind (the first ones compile kernels), else by the longest of the last of all
        kinds, and what still runs then is stopped.
    """

    waiting: list[Job]
    devices: list[str]
    logs: Path
    time_limit: float | None = None
    running: dict[int, _Running] = field(default_factory=dict)  # by position in `devices`
    lasted: dict[tuple[str, ...], float] = field(default_factory=dict)  # seconds, by kind

    def run(self) -> Generator[Ended, None, None]:
        """Yield each job as it ends; close the iterator to stop what runs."""
        self.logs.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        try:
            while True:
                elapsed = time.monotonic() - began
                if self.time_limit is not None and elapsed >= self.time_limit:
                    yield from self._stop()
                    return
                self._fill(elapsed)
                if not self.running:
                    return
                time.sleep(POLL)
                yield from self._ended()
        finally:
            list(self._stop())

    def _fill(self, elapsed: float) -> None:
        """Start on each free device the first job that fits into the time."""
        for device in range(len(self.devices)):
            job = next((job for job in self.waiting if self._fits(job, elapsed)), None)
            if device not in self.running and job is not None:
                self.waiting.remove(job)
                process = self._start(job, 0, device)
                self.running[device] = _Running(job, process, time.monotonic())

    def _fits(self, job: Job, elapsed: float) -> bool:
        if self.time_limit is None:
            return True
        likely = self.lasted.get(job.kind, max(self.lasted.values(), default=0.0))
        return elapsed + likely <= self.time_limit

    def _start(self, job: Job, command: int, device: int) -> subprocess.Popen[bytes]:
        """Start a job's command in a session of its own, to be stopped with all its processes."""
        with (self.logs / job.log).open("ab" if command else "wb") as output:
            return subprocess.Popen(
                [sys.executable, *job.commands[command]],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"CUDA_VISIBLE_DEVICES": self.devices[device]},
                start_new_session=True,
            )

    def _ended(self) -> Iterator[Ended]:
        for device, one in list(self.running.items()):
            status = one.process.poll()
            if status is None:
                continue
            if status == 0 and one.next_command < len(one.job.commands):
                one.process = self._start(one.job, one.next_command, device)
                one.next_command += 1
                continue
            del self.running[device]
            seconds = time.monotonic() - one.started
            if status == 0:
                self.lasted[one.job.kind] = seconds
            yield Ended(one.job, seconds, status)

    def _stop(self) -> Iterator[Ended]:
        for one in self.running.values():
            _signal_session(one.process, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while self.running:
            _, one = self.running.popitem()
            with suppress(subprocess.TimeoutExpired):
                one.process.wait(max(0.0, deadline - time.monotonic()))
            _signal_session(one.process, signal.SIGKILL)  # what it has left, too
            one.process.wait()
            yield Ended(one.job, time.monotonic() - one.started, None)


def _signal_session(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # all of it has ended
        os.killpg(process.pid, number)
