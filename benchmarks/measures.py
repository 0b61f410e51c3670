"""What `benchmarks.training` measures: one function a measure, which gives figures as it has them.

Rates are images a second of all processes together.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.bench import Bench, Figure
from benchmarks.evaluation import LOOP_QUERIES, make_problem, time_loop
from benchmarks.resident_images import create_source
from benchmarks.setups import PUBLISHED, QUERIES, TrainingRun, files, make_config, resident
from benchmarks.timing import copy_bandwidth, wait
from data import image_folder
from engine.coding import encode
from engine.dataset import DATA_ROOT_VARIABLE
from engine.evaluate import RADIUS, make_run_codes
from engine.memory import refresh_memory
from engine.model import collect_outputs
from engine.run import Run, open_run
from retrieval.codes import Codes
from retrieval.hamming import pair_up
from retrieval.scored import score_all
from utils.def_file import PROJECT

RATE = "images/s"
CPU = torch.device("cpu")
LOADER = "DataLoader, Pillow, float32, eager"
MEMORY_BATCH, MEMORY_IMAGES = 64, 2598  # CIFAR-100 at imbalance factor 100

Figures = Iterator[Figure]


def ceiling(bench: Bench) -> Figures:
    """What the device reaches in large matrix products and copies."""
    yield Figure("matrix_rate", bench.matrix_rate() / 1e12, "TFLOP/s")
    yield Figure("copy_bandwidth", copy_bandwidth(bench.device) / 1e9, "GB/s")


def bare_step(bench: Bench, backbone: str) -> Figures:
    """Forward, loss, backward, optimizer on one batch on the device; its share of the ceiling."""
    size = bench.options.batch_size
    for mode in bench.options.accelerate:
        speed = bench.training(backbone, mode, size)
        yield Figure("bare_step", speed.bare, RATE, backbone, size, mode)
        if speed.flops_per_second is not None:
            reached, limit = speed.flops_per_second / 1e12, bench.matrix_rate() / 1e12
            against = "large matrix products"
            yield Figure("flops_share", reached, "TFLOP/s", backbone, size, mode, against, limit)


def epoch(bench: Bench, backbone: str) -> Figures:
    """A whole epoch: sampling, augmentation, steps, schedule, sums of losses."""
    size = bench.options.batch_size
    for mode in bench.options.accelerate:
        speed = bench.training(backbone, mode, size)
        yield Figure(
            "epoch", speed.epoch, RATE, backbone, size, mode, "bare step", speed.bare, ">= 0.9"
        )


def small_batch(bench: Bench, backbone: str) -> Figures:
    """What launches cost: the epoch at a small batch size."""
    size, small = bench.options.batch_size, bench.options.small_batch_size
    for mode in [each for each in bench.options.accelerate if each != "none"] or ["none"]:
        value = bench.training(backbone, mode, small).epoch
        large = bench.training(backbone, mode, size).epoch
        against = f"epoch at batch {size}"
        yield Figure("small_batch", value, RATE, backbone, small, mode, against, large, ">= 0.5")


def peak_memory(bench: Bench, backbone: str) -> Figures:
    """GPU memory that an epoch reserves, its images included; nothing on the CPU."""
    size = bench.options.batch_size
    for mode in bench.options.accelerate:
        peak = bench.training(backbone, mode, size).peak_gib
        if peak is not None:
            yield Figure("peak_memory", peak, "GiB", backbone, size, mode, target="<= 24")


def conventional(bench: Bench, backbone: str) -> Figures:
    """The epoch against the usual loop over the same images."""
    options = bench.options
    speed = bench.training(backbone, bench.mode, options.batch_size)
    bench.free_memory()
    source = create_source(options.data_root, options.images, QUERIES)
    loop = bench.conventional(backbone)
    rate = loop.train_rate(source, source.subsets["train"], options.loop_steps)
    yield Figure(
        "conventional", speed.epoch, RATE, backbone, options.batch_size, bench.mode, LOADER, rate,
        ">= 3",
    )  # fmt: skip


def memory_refresh(bench: Bench, backbone: str) -> Figures:
    """Rebuilding the memory, against an epoch of which it is a part."""
    bench.free_memory()
    data = resident(min(MEMORY_IMAGES, bench.options.images))
    subject = TrainingRun(
        make_config(
            bench.options, backbone, data, PUBLISHED, accelerate=bench.mode, batch_size=MEMORY_BATCH
        )
    )

    def whole() -> None:
        subject.epoch()
        refresh_memory(subject.run)

    whole()
    part, seconds = bench.time(lambda: refresh_memory(subject.run)), bench.time(whole)
    against = "epoch with its refresh"
    yield Figure(
        "memory_refresh", part, "s", backbone, MEMORY_BATCH, bench.mode, against, seconds,
        "<= 0.25",
    )  # fmt: skip


def coding(bench: Bench, backbone: str) -> Figures:
    """Outputs of many images, against the bare network on a batch on the device."""
    bench.free_memory()
    run = _coding_run(bench, backbone)
    indices = run.dataset.split.database[: bench.options.codes]
    size = run.config.training_opt.evaluation_batch_size

    def collect() -> None:
        collect_outputs(
            run.model, run.dataset, indices, run.augmentation, run.precision, ("codes", "logits"),
            size,
        )  # fmt: skip

    collect()
    rate = len(indices) / bench.time(collect)
    bare = _forward_rate(bench, run, size)
    yield Figure("coding", rate, RATE, backbone, size, "", "bare forward pass", bare, ">= 0.85")


def evaluation(bench: Bench, backbone: str) -> Figures:
    """Coding every image and all metrics, against the usual loops over a sample, scaled.

    The usual loop codes on the device and scores on the CPU, as published code does.
    """
    options = bench.options
    bench.free_memory()
    run = _coding_run(bench, backbone)
    count = options.queries + options.database
    code_length = code_and_score(run).code_length
    seconds = bench.time(lambda: code_and_score(run))
    loop_seconds = _loop_seconds(bench, backbone, code_length)
    sample = options.loop_steps * options.batch_size
    against = f"{LOADER}, and a loop over queries on the CPU, scaled from {sample} images"
    size = run.config.training_opt.evaluation_batch_size
    yield Figure("evaluation_seconds", seconds, "s", backbone, size)
    yield Figure(
        "evaluation", count / seconds, RATE, backbone, size, "", against, count / loop_seconds,
        ">= 20",
    )  # fmt: skip


def streaming(bench: Bench, backbone: str) -> Figures:
    """An epoch from large JPEG files, against the bare step and the usual loop; the GPU's waits."""
    options, mode = bench.options, bench.mode
    bare = bench.training(backbone, mode, options.batch_size).bare
    folder = bench.jpegs()
    bench.free_memory()
    subject = TrainingRun(
        make_config(options, backbone, files(), accelerate=mode, data_root=str(folder))
    )
    subject.epoch()
    rate, waits = max(subject.steady_rate() for _ in range(min(2, options.repeats)))
    common = (backbone, options.batch_size, mode)
    yield Figure("streaming", rate, RATE, *common, "bare step", bare, ">= 0.9")
    yield Figure("streaming_wait", waits, "of a step", *common, target="<= 0.05")
    started = time.perf_counter()
    batches = subject.batches()
    next(batches)
    wait(bench.device)
    yield Figure("streaming_first_batch", time.perf_counter() - started, "s", *common)
    del batches, subject
    bench.free_memory()
    source = image_folder.create_source(folder)
    loop = bench.conventional(backbone)
    usual = loop.train_rate(source, source.subsets["train"], options.loop_steps)
    yield Figure("streaming_conventional", rate, RATE, *common, LOADER, usual)


def whole_run(bench: Bench) -> Figures:
    """`python main.py` on the configs of --run, from its start to its exit."""
    configs = [str(Path(config).resolve()) for config in bench.options.run]
    variables = os.environ | {DATA_ROOT_VARIABLE: str(Path(bench.options.data_root).resolve())}
    with tempfile.TemporaryDirectory() as folder:  # where the runs' relative folders go
        command = [sys.executable, str(PROJECT / "main.py"), "--config", *configs]
        if bench.options.run_record:
            command += ["--record", str(bench.options.run_record.resolve())]
        started = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
        seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"main.py ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    names = " + ".join(Path(config).stem for config in configs)
    yield Figure("whole_run", seconds, "s", names, target="<= 120")


ONCE: dict[str, Callable[[Bench], Figures]] = {"ceiling": ceiling, "whole_run": whole_run}
ASKED = ("whole_run",)  # measured only if asked for: minutes on a GPU, hours on a CPU
EACH: dict[str, Callable[[Bench, str], Figures]] = {
    "bare_step": bare_step,
    "epoch": epoch,
    "small_batch": small_batch,
    "peak_memory": peak_memory,
    "conventional": conventional,
    "memory_refresh": memory_refresh,
    "coding": coding,
    "evaluation": evaluation,
    "streaming": streaming,
}
BY_SEVERAL = ("ceiling", "bare_step", "epoch", "small_batch", "peak_memory", "memory_refresh")


def code_and_score(run: Run) -> Codes:
    """What a test does, but for its files: code queries and database, and score the codes."""
    split, options = run.dataset.split, run.config.training_opt
    codes = make_run_codes(run, encode(run, split.query), encode(run, split.database))
    top_k = tuple(options.top_k)
    score_all({"codes": codes}, None, top_k, "expected", RADIUS, run.device)
    return codes


def _coding_run(bench: Bench, backbone: str) -> Run:
    data = resident(bench.options.database, bench.options.queries)
    return open_run(make_config(bench.options, backbone, data))


@torch.inference_mode()
def _forward_rate(bench: Bench, run: Run, size: int) -> float:
    """Images a second of the network in evaluation mode, on one batch on the device."""
    indices = run.dataset.split.database[:size]
    images, _ = next(run.dataset.batches([indices], run.augmentation))
    if images.is_cuda:
        images = images.contiguous(memory_format=torch.channels_last)
    run.model.eval()

    def forward() -> None:
        for _ in range(bench.options.steps):
            with run.precision():
                run.model(images)

    forward()
    return len(images) * bench.options.steps / bench.time(forward)


def _loop_seconds(bench: Bench, backbone: str, code_length: int) -> float:
    """Seconds that the usual loops take for all images, from a sample of each.

    The codes to score are made up: those of a network without weights are nearly all alike, and
    equal distances are sorted in less than half the time.
    """
    options = bench.options
    count = options.queries + options.database
    source = create_source(options.data_root, options.database, options.queries)
    loop = bench.conventional(backbone)
    coding_rate = loop.coding_rate(source, source.subsets["train"], options.loop_steps)
    queries = min(options.queries, LOOP_QUERIES[CPU.type])
    codes, labels = make_problem(queries, options.database, code_length, CPU)
    pairing = pair_up(*codes, *labels, code_length=code_length)
    per_query = time_loop(pairing, queries, CPU) / queries
    return count / coding_rate + per_query * options.queries
