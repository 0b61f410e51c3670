"""Run any part of the table of long-tailed CIFAR-100: `python -m benchmarks.long_tail_table`.

Each run is `python main.py ... --record`, one process a GPU. What the record already holds (by
method, imbalance factor, code length, seed and recipe) is not run again, so that the same command
goes on where it stopped, and what a config no longer says is run anew; an interrupted run leaves no
row. `python -m benchmarks.readme_tables` then makes the README's table.
"""

import argparse
import itertools
import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NoReturn

from benchmarks.job_queue import Ended, Job, JobQueue
from benchmarks.seeds import Row, by_cell, cell_of, mean_and_deviation, read_rows
from engine.checkpoint import BEST
from engine.config import RunConfig, load_config
from engine.recipe import recipe
from engine.records import check_record
from utils.errors import UserError
from utils.parser import OneLineParser

MAIN = "main.py"
Key = tuple[str, str, int, str, str]  # a cell, its seed and the recipe


@dataclass(frozen=True)
class Stage:
    """A config of a method, and the options it takes at imbalance factor 1."""

    config: str
    balanced: tuple[str, ...] = ()


EPOCHS_20 = ("training_opt.num_epochs=20", "training_opt.evaluate_interval=20")
EPOCHS_15 = ("training_opt.num_epochs=15", "training_opt.evaluate_interval=15")
ENOUGH_IMAGES = (  # to learn statistics from, and to do without inventing more
    "networks.feat_model.fix_statistics=false",
    "training_opt.augmentation.trivial_augment=false",
)
FAST = (
    "training_opt.image_size=160",  # as good as 224 here, at half the arithmetic
    "training_opt.batch_size=256",
    "training_opt.optimizer.params.lr=2e-3",
    "networks.feat_model.optim_params.lr=4e-4",
)
WHOLE_IMAGES_LAST = (  # as the database's are coded
    "training_opt.final_epochs=7",
    "training_opt.final_augmentation={crop_scale: [1, 1], crop_ratio: [1, 1]}",
)
MIRRORED = ("training_opt.mirror_codes=true",)
# How they were found: docs/long_tail_study.md, section 5.
BALANCED = (*ENOUGH_IMAGES, *FAST, *WHOLE_IMAGES_LAST, *MIRRORED)
COSINE = (  # attention as it was tried there: not whitened, and with nothing to adjust for
    "networks.hash_head.params={attention: cosine, temperature: 14, selector: 1}",
)
FOLDER = "config/Cifar100_LT"
STAGE_1 = Stage(f"{FOLDER}/stage_1.py", (*EPOCHS_15, *BALANCED))
STAGE_2 = Stage(f"{FOLDER}/stage_2_meta_embedding.py", (*BALANCED, *COSINE))
METHODS = {  # by the `method` of their last config, which names their rows
    "lthnet": (Stage(f"{FOLDER}/lthnet_published.py", EPOCHS_20),),
    "lthnet_k0": (Stage(f"{FOLDER}/lthnet_published_k0.py", EPOCHS_20),),
    "lthnet_sq": (Stage(f"{FOLDER}/lthnet_published_sq.py", EPOCHS_20),),
    "lthnet_sq_k0": (Stage(f"{FOLDER}/lthnet_published_sq_k0.py", EPOCHS_20),),
    "hashnet": (Stage(f"{FOLDER}/hashnet.py", (*EPOCHS_20, *BALANCED)),),
    "csq": (Stage(f"{FOLDER}/csq.py", (*EPOCHS_15, *BALANCED)),),
    "orthohash": (Stage(f"{FOLDER}/orthohash.py", (*EPOCHS_15, *BALANCED)),),
    "ours": (STAGE_1, STAGE_2),
    "direct": (STAGE_1,),
}


@dataclass(frozen=True)
class Step:
    """One config of a run, with its options; `key` names the row that it will record."""

    config: RunConfig
    options: list[str]
    key: Key


@dataclass(frozen=True)
class Run:
    """A method's run; `keys` name the rows that it will record, the method's own last."""

    job: Job
    keys: list[Key]


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 when a run failed, 2 for a user's mistake, 130 when interrupted."""
    try:
        options = _options(arguments)
        check_record(options.record)
        runs = plan(options)
        if options.dry_run:
            for run in runs:
                print(" && ".join(shlex.join(["python", *each]) for each in run.job.commands))
            return 0
        return execute(options, runs)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="python -m benchmarks.long_tail_table", description=__doc__)
    add = parser.add_argument
    add(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=list(METHODS),
        metavar="METHOD",
        help=", ".join(METHODS),
    )
    add("--imbalance", nargs="+", type=float, default=[100, 50, 1], metavar="IF")
    add("--bits", nargs="+", type=int, default=[32, 64, 96], metavar="Q", help="code lengths")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")
    add(
        "--opts",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="passed on to all runs, after the method's own",
    )
    add("--record", type=Path, default=Path("logs/records/cifar100_lt.csv"), metavar="CSV")
    add(
        "--since",
        type=_date,
        metavar="DATE",
        help="rows of before, such as 2026-11-23T09:00, do not count as run",
    )
    add("--gpus", type=int, help="how many to use; 0 for the CPU [all]")
    add("--processes_per_gpu", type=int, default=1)
    add(
        "--time_limit",
        type=float,
        metavar="SECONDS",
        help="start no run that would end later, by the last one; stop what still runs",
    )
    add("--logs", type=Path, default=Path("logs/long_tail_table"), help="folder of runs' output")
    add("--dry_run", action="store_true", help="print the commands only")
    options = parser.parse_args(arguments)  # fmt: skip
    if options.processes_per_gpu < 1:
        raise UserError(f"--processes_per_gpu is {options.processes_per_gpu}, expected 1 or more")
    if options.time_limit is not None and not options.time_limit > 0:
        raise UserError(f"--time_limit is {options.time_limit:g}, expected seconds above 0")
    return options


def _date(text: str) -> datetime:
    date = datetime.fromisoformat(text)
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def plan(options: argparse.Namespace) -> list[Run]:
    """The runs that the record does not hold, all methods of a seed before the next seed.

    A run of two stages records both, so that the first is not run by itself beside it.

    Raises:
        UserError: a config or an option is wrong.
    """
    rows = _held(read_rows(options.record), options.since)
    methods = sorted(options.methods, key=lambda name: -len(METHODS[name]))
    runs: list[Run] = []
    covered: set[Key] = set()
    for seed, factor, bits in itertools.product(options.seeds, options.imbalance, options.bits):
        for method in methods:
            steps = _steps(method, factor, bits, seed, options.opts)
            last = steps[-1].key
            if last in rows or last in covered:
                continue
            while len(steps) > 1 and _stands(steps[0], steps[1], rows):
                del steps[0]
            covered.update(step.key for step in steps)
            runs.append(_run(method, steps, options.record))
    return runs


def current_recipe(factor: str, method: str, opts: Sequence[str] = ()) -> str:
    """The recipe of a method's runs by its config as it is, for any code length and seed.

    '' for a method or data that the table has not.
    """
    if method not in METHODS or not factor:
        return ""
    return _steps(method, float(factor), bits=64, seed=0, opts=list(opts))[-1].key[-1]


def _held(rows: list[Row], since: datetime | None) -> dict[Key, Row]:
    """The last row of each key, of those not before `since`."""
    return {
        (*cell_of(row), row["seed"], row["recipe"]): row
        for row in rows
        if since is None or datetime.fromisoformat(row["date"]) >= since
    }


def _steps(method: str, factor: float, bits: int, seed: int, opts: list[str]) -> list[Step]:
    steps: list[Step] = []
    starts: dict[Path, str] = {}  # recipes of the checkpoints to come
    for stage in METHODS[method]:
        options = [
            f"training_opt.imbalance_factor={factor:g}",
            f"training_opt.code_length={bits}",
            f"training_opt.seed={seed}",
            *(stage.balanced if factor == 1 else ()),
            *opts,
        ]
        config = load_config(stage.config, options)
        name = recipe(config, starts)
        key = (f"{factor:g}", config.training_opt.method, bits, str(seed), name)
        steps.append(Step(config, options, key))
        starts[Path(config.training_opt.log_dir) / BEST] = name
    return steps


def _stands(step: Step, after: Step, rows: dict[Key, Row]) -> bool:
    """Whether the next stage can start from a recorded run's folder.

    Its figures and recipe must be the row's, and no checkpoint newer, as of a run that was
    interrupted.
    """
    metrics = Path(step.config.training_opt.log_dir) / "metrics.json"
    weights = {each.weights for each in after.config.networks.values()} - {None, "default"}
    try:
        found = json.loads(metrics.read_text(encoding="utf-8"))
        newest = max(Path(path).stat().st_mtime for path in weights if path)
        fresh = newest <= metrics.stat().st_mtime
        own = step.key in rows and found["date"] == rows[step.key]["date"]
        return fresh and own and found["recipe"] == step.key[-1]
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _run(method: str, steps: list[Step], record: Path) -> Run:
    """Stages of the same options go into one process."""
    commands = []
    for given, group in itertools.groupby(steps, key=lambda step: step.options):
        configs = [step.config.path for step in group]
        tail = ["--opts", *given, "--record", str(record)]
        commands.append([MAIN, "--config", *configs, *tail])
    factor, _, bits, seed, _ = steps[-1].key
    name = f"{method}, IF {factor}, {bits} bits, seed {seed}"
    log = f"if{factor}_{bits}bits_seed{seed}_{method}.log"
    return Run(Job(name, (method, factor), commands, log), [step.key for step in steps])


def execute(options: argparse.Namespace, runs: list[Run]) -> int:
    """Run them, a line each as it ends, and print the table; returns the exit status."""
    queue = JobQueue([run.job for run in runs], _devices(options), options.logs, options.time_limit)
    keys = {run.job.name: run.keys for run in runs}
    print(f"{len(runs)} runs to do, {len(queue.devices)} at a time", flush=True)
    failures = done = 0
    with closing(queue.run()) as ended:
        for end in ended:
            rows = _held(read_rows(options.record), options.since)
            outcome = _outcome(end, keys[end.job.name], rows, options.logs)
            failures += "failed" in outcome
            done += end.status is not None
            print(f"[{done}/{len(runs)}] {end.job.name}: {outcome}", flush=True)
    if done < len(runs):
        print(f"{len(runs) - done} runs are left; the same command goes on", flush=True)
    print(f"\n{table(options)}", flush=True)
    return 1 if failures else 0


def _outcome(end: Ended, keys: list[Key], rows: dict[Key, Row], logs: Path) -> str:
    """How a run ended, in a line: its seconds and MAP, or where to read what went wrong."""
    after = f"after {end.seconds:.0f} s"
    if end.status is None:
        return f"stopped {after}, as the time is up"
    log = logs / end.job.log
    if end.status:
        return f"failed with status {end.status} {after}, see {log}"
    if any(key not in rows for key in keys):
        return f"failed: recorded no row {after}, see {log}"
    figures = [f"{key[1]} {float(rows[key]['map']):.4f}" for key in keys]
    return f"{end.seconds:.0f} s, MAP {', '.join(figures)}"


def table(options: argparse.Namespace) -> str:
    """What the record holds of the asked cells: MAP, mean ± deviation over seeds (how many)."""
    current = partial(current_recipe, opts=options.opts)
    cells = by_cell(read_rows(options.record), current)
    lines = [["IF", "method", *(f"{bits} bits" for bits in options.bits)]]
    for factor, method in itertools.product(options.imbalance, options.methods):
        found = [cells.get((f"{factor:g}", method, bits), []) for bits in options.bits]
        texts = [f"{mean_and_deviation(rows, 'map')} ({len(rows)})" for rows in found]
        lines.append([f"{factor:g}", method, *texts])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _devices(options: argparse.Namespace) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each process at a time; '' is the CPU."""
    from torch import cuda

    count = cuda.device_count() if options.gpus is None else options.gpus
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    if not 0 <= count <= len(names):
        raise UserError(f"--gpus is {count}, but CUDA_VISIBLE_DEVICES names {len(names)}")
    return (names[:count] or [""]) * options.processes_per_gpu


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)  # so that its runs stop, too
    sys.exit(main())
