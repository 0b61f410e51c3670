"""--profile: where the time of a training step goes."""

from collections.abc import Iterator
from itertools import count, islice

from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from engine.run import Run
from engine.train import build_training, step, train_batches, train_mode
from utils.atomic_file import atomic_path

WARM_UP, MEASURED = 5, 10  # steps
SPANS = ("batch", "forward", "losses", "backward", "optimizer")
TRACE = "trace.json"


def profile_steps(run: Run) -> str:
    """Trace ten training steps into the run's folder; returns a table of milliseconds a step.

    trace.json opens in Perfetto and chrome://tracing. "batch" is what a step waits for its images.
    "host" is the time that Python spends, "device" that of the kernels a GPU runs for it.
    """
    training = build_training(run)
    train_mode(run)
    batches = _spanned(_endless(run))
    for images, labels in islice(batches, WARM_UP):
        step(run, training, images, labels)
    activities = [ProfilerActivity.CPU]
    if run.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as trace:
        for images, labels in islice(batches, MEASURED):
            step(run, training, images, labels)
    run.log_dir.mkdir(parents=True, exist_ok=True)
    with atomic_path(run.log_dir / TRACE) as temporary:
        trace.export_chrome_trace(str(temporary))
    events = {event.key: event for event in trace.key_averages()}
    lines = [f"{'ms a step':<12}{'host':>10}{'device':>10}"]
    for name in SPANS:
        host = events[name].cpu_time_total / 1e3 / MEASURED
        device = events[name].device_time_total / 1e3 / MEASURED
        lines.append(f"{name:<12}{host:>10.2f}{device:>10.2f}")
    return "\n".join(lines)


def _endless(run: Run) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch in count():
        yield from train_batches(run, epoch)


def _spanned(batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        with record_function("batch"):
            batch = next(batches)
        yield batch
