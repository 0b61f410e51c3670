"""Ray under a cluster job: it starts or finds the cluster, and carries blocks to workers."""

import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import pyarrow as pa
import ray
import ray.data

from engine.dataset import MAX_AUTO_WORKERS
from search.cluster_worker import BlockCoder, Done, Job, as_row, from_row
from utils.cores import available_cores
from utils.def_file import PROJECT
from utils.errors import UserError
from utils.stop_signals import NUMBERS

LOCAL = "local"
WAIT_SECONDS = 10.0  # for a cluster's address to answer
OBJECT_BYTES = 256 << 20  # for blocks on their way, on one machine
NOT_SHIPPED = [".git", ".venv", "logs", "tests", "docs", "data/*/"]


@dataclass(frozen=True)
class Workers:
    """How many copies of the model there are, each on a device with so many cores."""

    count: int
    device: str
    cores: int

    @property
    def options(self) -> dict[str, Any]:
        """Training options of a worker: on a CPU its own process reads images."""
        readers = self.cores if self.device == "cuda" else 0
        return {"device": self.device, "num_workers": readers}


@contextmanager
def cluster(address: str, least_cores: int = 1) -> Iterator[None]:
    """A cluster that runs at an address, or for 'local' one of this machine, within a block.

    least_cores: that a local one says to have, so that as many workers fit.

    Raises:
        UserError: there is none, or it has another version of Ray or Python.
    """
    _quieten()
    with _only_this_thread_speaks():
        if ray.is_initialized():
            yield
            return
        _start(address, least_cores)
        try:
            yield
        finally:
            ray.shutdown()


def _start(address: str, least_cores: int) -> None:
    options: dict[str, Any] = {"logging_level": logging.CRITICAL, "log_to_driver": False}
    if address == LOCAL:
        options |= {"num_cpus": max(available_cores(), least_cores), "include_dashboard": False}
        options |= {"object_store_memory": OBJECT_BYTES}
        paths = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
        options["runtime_env"] = {"env_vars": {"PYTHONPATH": paths}}
    else:
        options["runtime_env"] = {"working_dir": str(PROJECT), "excludes": NOT_SHIPPED}
    try:
        _knock(address)
        with _silent_descriptor(), _signals_kept():
            ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        if address == LOCAL:
            raise UserError(
                f"Ray does not start here ({reason}); its logs are in /tmp/ray"
            ) from None
        raise UserError(
            f"--address {address}: no cluster answers ({reason}); start one with ray start --head, "
            "or leave --address out"
        ) from None


def _knock(address: str) -> None:
    """Raise an OSError where nobody listens at host:port; Ray would go on trying."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), WAIT_SECONDS).close()


def choose_workers(device: str | None, replicas: int | None) -> Workers:
    """One copy of the model a GPU, or where the cluster has none, one a core.

    Raises:
        UserError: the cluster has not so many.
    """
    found = ray.cluster_resources()
    cores, gpus = int(found.get("CPU", 0)), int(found.get("GPU", 0))
    device = device if device in ("cpu", "cuda") else ("cuda" if gpus else "cpu")
    there = gpus if device == "cuda" else cores
    if not there or (replicas or 0) > there:
        raise UserError(
            f"--replicas {replicas or 1}, but the cluster has {there} "
            f"{'GPUs' if device == 'cuda' else 'cores'} to put one each on; ask for fewer"
        )
    count = replicas or there
    share = _cores_a_gpu() if device == "cuda" else cores // count
    return Workers(count, device, max(1, share))


def _cores_a_gpu() -> int:
    """Cores for each GPU, of the machine that has the fewest."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    shares = [int(node.get("CPU", 0) / node["GPU"]) for node in nodes if node.get("GPU")]
    return min(MAX_AUTO_WORKERS, *shares)


def code_blocks(
    job: Job, blocks: Iterable[tuple[str, pa.Table]], workers: Workers
) -> Iterator[Done]:
    """Code blocks of images, by the name of their part; yields what is done, as it comes.

    Ray starts a worker that dies anew, and gives it its block again.

    Raises:
        UserError: a worker says that the job cannot go on, or workers die again and again.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    rows = ray.data.from_arrow([as_row(part, block) for part, block in blocks])
    pool = ray.data.ActorPoolStrategy(
        min_size=1, max_size=workers.count, initial_size=workers.count,
        max_tasks_in_flight_per_actor=2,
    )  # fmt: skip
    done = rows.map_batches(
        _Worker,
        fn_constructor_args=(job,),
        batch_size=1,
        batch_format="pyarrow",
        compute=pool,
        num_cpus=1 if workers.device == "cuda" else workers.cores,
        num_gpus=1 if workers.device == "cuda" else 0,
    )
    tables = done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    try:
        for table in cast(Iterator[pa.Table], tables):
            for values in table.to_pylist():
                found = Done(**{**values, "unreadable": dict(values["unreadable"])})
                if found.mistake:
                    raise UserError(found.mistake)
                yield found
    except ray.exceptions.RayError as error:
        *_, reason = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
        raise UserError(
            f"workers failed ({reason[:300]}); what is coded is kept, and the same command goes on"
        ) from None


class _Worker:
    """What Ray Data runs: one row of `as_row` in, one row of `Done` out."""

    def __init__(self, job: Job) -> None:
        self.coder = BlockCoder(job)

    def __call__(self, rows: pa.Table) -> pa.Table:
        found = [self.coder.code(*from_row(row)) for row in rows.to_pylist()]
        columns: dict[str, Any] = {
            name: [getattr(each, name) for each in found]
            for name in ("part", "images", "mistake", "worker")
        }
        pairs = [list(each.unreadable.items()) for each in found]
        columns["unreadable"] = pa.array(pairs, pa.map_(pa.string(), pa.string()))
        return pa.table(columns)


def _quieten() -> None:
    warnings.filterwarnings("ignore", module="ray")
    for name in ("ray", "ray.data", "ray.tune", "ray.serve"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _silent_descriptor() -> Iterator[None]:
    """Ray's native part greets on the process's own stderr; its errors are exceptions too."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts a handler of its own in the place of the command's."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _only_this_thread_speaks() -> Iterator[None]:
    """Ray prints what happens to workers from threads of its own; the job says what matters."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_OneThread(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class _OneThread:
    """A stream that passes on what the thread writes that made it."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        """Write, or not."""
        return self.stream.write(text) if threading.get_ident() == self.thread else len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
