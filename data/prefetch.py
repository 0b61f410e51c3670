"""Batches made ahead of their use: by a background thread, and on a GPU beside its other work."""

import atexit
import os
from collections.abc import Generator, Iterator
from contextlib import closing
from queue import SimpleQueue
from threading import Event, Semaphore, Thread, current_thread
from typing import Any, TypeVar

import torch
from torch import Tensor

from utils.streams import stream_for

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
    stream = stream_for(device, "batches")
    with torch.cuda.stream(stream), closing(batches):
        for tensor in batches:
            yield tensor, stream.record_event()


def one_ahead(batches: Iterator[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Yield tensors of a GPU, each made there while the caller's stream works on the one before.

    No thread is needed, as nothing waits: the host launches a tensor's kernels on a side stream
    before it hands out the one before. They start when the caller's work so far is done, so their
    memory may be that of tensors the caller has dropped. It must use them on one stream.
    """
    side = stream_for(device, "augmentation")

    def make() -> tuple[Tensor, torch.cuda.Event] | None:
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            made = next(batches, None)
            return None if made is None else (made, side.record_event())

    following = make()
    try:
        while following is not None:
            tensor, ready = following
            following = make()
            torch.cuda.current_stream(device).wait_event(ready)
            yield tensor
            del tensor  # so that the one after the next can have its memory
    finally:  # what the side stream reads is the caller's, who may drop it now
        torch.cuda.current_stream(device).wait_stream(side)
