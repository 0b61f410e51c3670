"""How fast training and coding are: `python -m benchmarks.training [--only NAME ...]`.

Every ratio is of two figures of one run. The network is the one of config/Cifar100_LT without
weights; the images are CIFAR-100's where the data root has them, else made-up ones.
Under torchrun, rates are those of all processes together, which share each batch.
"""

import argparse
import datetime
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench import Bench, Figure
from benchmarks.measures import ASKED, BY_SEVERAL, EACH, ONCE
from benchmarks.resident_images import create_source
from benchmarks.rows import append_row
from benchmarks.setups import DIRECT, META, QUERIES, make_config, resident
from engine.dataset import DATA_ROOT_VARIABLE, MAX_AUTO_WORKERS
from engine.model import choose_device
from utils.cores import available_cores
from utils.def_file import PROJECT
from utils.distributed import is_main, joined, started_world_size
from utils.environment import environment
from utils.errors import UserError
from utils.parser import OneLineParser

BACKBONES = ["resnet34", "efficientnet_lite0"]


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; the exit status is 1 when a measure failed, 2 for wrong usage."""
    options = _options(arguments)
    try:
        _check(options)
        config = make_config(options, options.backbones[0], resident(options.images))
        device = choose_device(config.training_opt)
        with joined(device), tempfile.TemporaryDirectory() as folder:
            source = create_source(options.data_root, options.images, QUERIES)
            if is_main():
                print(f"images in memory: {source.name}", flush=True)
            failures = run(Bench(options, device, Path(folder)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 1 if failures else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="python -m benchmarks.training", description=__doc__)
    add = parser.add_argument
    cuda, cores = torch.cuda.is_available(), available_cores()
    add("--only", nargs="+", metavar="NAME", choices=[*ONCE, *EACH], help=", ".join(ONCE | EACH))
    add("--backbones", nargs="+", default=BACKBONES, help="of models/backbone.py")
    add(
        "--accelerate",
        nargs="+",
        default=["none", "graph"] if cuda else ["none"],
        choices=["none", "graph", "compile"],
        help="ways to train; see engine/accelerate.py",
    )
    add("--device", default="cuda" if cuda else "cpu", choices=["cpu", "cuda"])
    add("--image_size", type=int, default=224)
    add("--batch_size", type=int, default=128, help="of all processes together")
    add("--small_batch_size", type=int, default=16)
    add("--images", type=int, default=12_800, help="of an epoch")
    add("--codes", type=int, default=20_000, help="images of `coding`")
    add("--queries", type=int, default=10_000, help="of `evaluation`")
    add("--database", type=int, default=50_000, help="of `evaluation`")
    add("--jpegs", type=int, default=4096, help="files of `streaming`")
    add("--links", type=int, default=4, help="times that its epoch has each")
    add("--workers", type=int, default=min(MAX_AUTO_WORKERS, cores), help="that read images")
    add("--steps", type=int, default=30, help="of a timing of the bare step")
    add("--loop_steps", type=int, default=60, help="of the loops to compare with")
    add("--repeats", type=int, default=3, help="timings, of which the best counts")
    add("--data_root", default=os.environ.get(DATA_ROOT_VARIABLE, "data"))
    add(
        "--run",
        nargs="+",
        default=[f"config/Cifar100_LT/{s}.py" for s in (DIRECT, META)],
        metavar="CONFIG",
        help="configs of `whole_run`",
    )
    add("--run_record", type=Path, help="CSV file where `whole_run` adds its runs' figures")
    add("--record", type=Path, help="CSV file to add rows to")
    return parser.parse_args(arguments)  # fmt: skip


def _check(options: argparse.Namespace) -> None:
    several = started_world_size() > 1
    if options.only is None:
        measures = BY_SEVERAL if several else [*ONCE, *EACH]
        options.only = [name for name in measures if name not in ASKED]
    alone = [name for name in options.only if name not in BY_SEVERAL]
    if several and alone:
        raise UserError(f"--only {' '.join(alone)}: measured by one process; leave out torchrun")
    for name, value in vars(options).items():
        if isinstance(value, int) and value < (name != "workers"):
            raise UserError(f"--{name} is {value}, expected 1 or more")


def run(bench: Bench) -> int:
    """Print and record every figure; returns how many measures failed."""
    failures, about = 0, _about(bench)
    for name, measure in _chosen(bench):
        try:
            for figure in measure():
                if is_main():
                    _report(figure, bench.options.image_size, about, bench.options.record)
        except Exception as error:
            if started_world_size() > 1:  # the others would wait for this process
                raise
            failures += 1
            print(f"{name} failed: {_one_line(error)}", file=sys.stderr, flush=True)
        bench.free_memory()
    return failures


def _chosen(bench: Bench) -> Iterator[tuple[str, Callable[[], Iterator[Figure]]]]:
    """The asked measures by name, each backbone's by itself."""
    for name in bench.options.only:
        if name in ONCE:
            yield name, partial(ONCE[name], bench)
        for backbone in bench.options.backbones if name in EACH else []:
            yield f"{name} of {backbone}", partial(EACH[name], bench, backbone)


def _about(bench: Bench) -> dict[str, Any]:
    """The columns that all rows have alike."""
    found = environment(bench.device)
    return {
        "gpu": found["gpu"],
        "gpus": found["processes"],
        "torch": found["torch"],
        "commit": found["commit"],
    }


def _report(figure: Figure, image_size: int, about: dict[str, Any], record: Path | None) -> None:
    """Print a figure, and add its row to the record."""
    compared = ""
    if figure.ratio is not None:
        compared = f"{figure.ratio:.3g} x {figure.against}, {figure.against_value:.4g}"
    target = f"(target {figure.target})" if figure.target else ""
    batch_size = figure.batch_size or ""
    print(
        f"{figure.measure:<22} {figure.backbone:<18} {batch_size:>4} {figure.accelerate:<7} "
        f"{figure.value:>10.5g} {figure.unit:<8} {compared} {target}".rstrip(),
        flush=True,
    )
    if record is None:
        return
    row = {
        "date": datetime.date.today().isoformat(),
        "measure": figure.measure,
        "backbone": figure.backbone,
        "batch_size": batch_size,
        "image_size": image_size,
        "accelerate": figure.accelerate,
        "value": _rounded(figure.value),
        "unit": figure.unit,
        "against": figure.against,
        "against_value": _rounded(figure.against_value),
        "ratio": _rounded(figure.ratio),
        "target": figure.target,
        **about,
    }
    append_row(record, row)


def _rounded(value: float | None) -> float | str:
    return "" if value is None else float(f"{value:.6g}")


def _one_line(error: Exception) -> str:
    """The error and where in the project it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(PROJECT)]
    place = f"{Path(own[-1].filename).relative_to(PROJECT)}:{own[-1].lineno}"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]} ({place})"


if __name__ == "__main__":
    sys.exit(main())
