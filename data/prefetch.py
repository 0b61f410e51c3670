"""Batches made ahead of their use by a background thread, on a GPU on a stream of its own."""

import atexit
import os
from collections.abc import Generator
from contextlib import closing
from functools import lru_cache
from queue import SimpleQueue
from threading import Event, Semaphore, Thread, current_thread
from typing import Any, TypeVar

import torch
from torch import Tensor

# Of the device's queues. With the usual 8 streams share them, and a decoder's work may stand behind
# a training step that it has nothing to do with. CUDA reads this when it starts.
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")

T = TypeVar("T")
_DEPTH = 2  # batches ahead


def prefetch(items: Generator[T, Any, Any], depth: int = _DEPTH) -> Generator[T, None, None]:
    """Yield the items in order, which a thread makes up to `depth` ahead of their use.

    The thread starts with the first item asked for. It ends, and closes `items`, once they are
    used up, when this generator is closed, and when the interpreter exits.

    Raises:
        whatever making an item raises.
    """
    ready: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    room, stopped = Semaphore(depth), Event()

    def make() -> None:
        try:
            with closing(items):
                while room.acquire() and not stopped.is_set():
                    ready.put((next(items), None))
        except BaseException as error:
            ready.put((None, error))

    thread = Thread(target=make, name="prefetch", daemon=True)

    def stop() -> None:
        stopped.set()
        room.release()
        if thread is not current_thread():  # on which the last reference may be dropped
            thread.join()

    atexit.register(stop)  # a daemon thread alone would be cut off amid the device's work
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            room.release()
            yield item
    finally:
        atexit.unregister(stop)
        stop()


def prefetch_on_gpu(
    batches: Generator[Tensor, Any, Any], device: torch.device, depth: int = _DEPTH
) -> Generator[Tensor, None, None]:
    """Yield tensors that a thread makes on a side stream; only the caller's stream waits."""
    with closing(prefetch(_on_side_stream(batches, device), depth)) as made:
        for tensor, event in made:
            stream = torch.cuda.current_stream(device)
            stream.wait_event(event)
            tensor.record_stream(stream)
            yield tensor


def _on_side_stream(
    batches: Generator[Tensor, Any, Any], device: torch.device
) -> Generator[tuple[Tensor, torch.cuda.Event], None, None]:
    stream = side_stream(device, "batches")
    with torch.cuda.stream(stream), closing(batches):
        for tensor in batches:
            yield tensor, stream.record_event()


@lru_cache(maxsize=16)
def side_stream(device: torch.device, purpose: str) -> torch.cuda.Stream:
    """Return the one stream for a purpose: each new one would hold memory of its own.

    Its kernels, few and small, go before those of the network.
    """
    return torch.cuda.Stream(device, priority=-1)
