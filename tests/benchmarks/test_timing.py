import time

import pytest
import torch

from benchmarks.timing import StreamClock


def test_a_clock_sums_every_second_span():
    clock = StreamClock(torch.device("cpu"))
    for pause in (0.03, 0.2, 0.05, 0.2):
        clock.mark()
        time.sleep(pause)
    assert clock.between_pairs() == pytest.approx(0.08, abs=0.04)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_clock_tells_the_time_of_queued_work_not_of_queueing():
    device = torch.device("cuda", 0)
    numbers = torch.randn(4096, 4096, device=device)
    numbers @ numbers
    clock = StreamClock(device)
    torch.cuda.synchronize()
    clock.mark()
    for _ in range(20):
        numbers @ numbers
    started = time.perf_counter()
    clock.mark()
    queued = time.perf_counter() - started
    assert clock.between_pairs() > 5 * queued
