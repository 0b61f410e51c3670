"""Seconds of work on any device, and what the device could do at best."""

import time
from collections.abc import Callable
from typing import Any

import torch

COPY_BYTES = 1 << 28
MATRIX_SIZE = {"cpu": 512, "cuda": 8192}
PRODUCTS = 10  # a timing


def best_time(work: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """The shortest of several runs in seconds, the GPU waited for."""
    times = []
    for _ in range(repeats):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - start)
    return min(times)


def wait(device: torch.device) -> None:
    """Wait for the GPU's queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class StreamClock:
    """Marks in the device's queue of work, and the time between them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[Any] = []

    def mark(self) -> None:
        """Mark when the work queued so far is done."""
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self.device))
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def between_pairs(self) -> float:
        """Seconds from the first mark to the second, from the third to the fourth, and so on."""
        wait(self.device)
        pairs = zip(self.marks[::2], self.marks[1::2], strict=False)
        if self.device.type == "cuda":
            return sum(start.elapsed_time(end) for start, end in pairs) / 1e3
        return sum(end - start for start, end in pairs)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second that a large copy reads and writes."""
    source = torch.zeros(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / best_time(lambda: target.copy_(source), 10, device)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of large matrix products."""
    size = MATRIX_SIZE[device.type]
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)

    def products() -> None:
        for _ in range(PRODUCTS):
            torch.mm(left, right, out=out)

    return 2 * size**3 * PRODUCTS / best_time(products, 5, device)
