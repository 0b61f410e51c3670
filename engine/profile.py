"""--profile: where the time of a training step goes."""

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from engine.accelerate import PlainBackward
from engine.run import Run
from engine.train import Training, build_training, step, train_batches, train_mode
from utils.atomic_file import atomic_path
from utils.environment import peak_gpu_memory

WARM_UP, MEASURED = 5, 10  # steps
SPANS = ("batch", "forward", "losses", "backward", "optimizer")
TRACE = "trace.json"


def profile_steps(run: Run) -> str:
    """Trace ten training steps into the run's folder; returns a table of milliseconds a step.

    trace.json opens in Perfetto and chrome://tracing. "batch" is what a step waits for its images.
    "host" is the time that Python spends, "device" that of the kernels a GPU runs for it. The parts
    are those of the plain step: a captured or compiled one has none to tell apart. The last line
    is the step as `training_opt.accelerate` has it, without a trace.
    """
    training = build_training(run)
    train_mode(run)
    batches = _spanned(_endless(run))
    plain = replace(training, backward=PlainBackward(training.objective))
    _steps(run, plain, batches, WARM_UP)
    activities = [ProfilerActivity.CPU]
    if run.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as trace:
        _steps(run, plain, batches, MEASURED)
    run.log_dir.mkdir(parents=True, exist_ok=True)
    with atomic_path(run.log_dir / TRACE) as temporary:
        trace.export_chrome_trace(str(temporary))
    events = {event.key: event for event in trace.key_averages()}
    lines = [f"{'ms a step':<12}{'host':>10}{'device':>10}"]
    for name in SPANS:
        host = events[name].cpu_time_total / 1e3 / MEASURED
        device = events[name].device_time_total / 1e3 / MEASURED
        lines.append(f"{name:<12}{host:>10.2f}{device:>10.2f}")
    return "\n".join([*lines, _as_trained(run, training, batches)])


def _as_trained(run: Run, training: Training, batches: Iterator[tuple[Tensor, Tensor]]) -> str:
    """Milliseconds and images a second of the run's own step, and its memory."""
    _steps(run, training, batches, WARM_UP)
    started = time.perf_counter()
    _steps(run, training, batches, MEASURED)
    seconds = (time.perf_counter() - started) / MEASURED
    options = run.config.training_opt
    line = (
        f"as trained (accelerate='{options.accelerate}'): {seconds * 1e3:.2f} ms a step, "
        f"{options.batch_size / seconds:.0f} images/s"
    )
    peak = peak_gpu_memory(run.device)
    return line if peak is None else f"{line}, peak GPU memory {peak:.1f} GiB"


def _steps(
    run: Run, training: Training, batches: Iterator[tuple[Tensor, Tensor]], count: int
) -> None:
    for images, labels in islice(batches, count):
        step(run, training, images, labels)
    if run.device.type == "cuda":
        torch.cuda.synchronize(run.device)


def _endless(run: Run) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch in count():
        yield from train_batches(run, epoch)


def _spanned(batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        with record_function("batch"):
            batch = next(batches)
        yield batch
