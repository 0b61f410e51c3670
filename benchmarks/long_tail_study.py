"""Experiments for the recipe of long-tailed CIFAR-100: `python -m benchmarks.long_tail_study`.

Each trains a change of config/Cifar100_LT/stage_1.py, or of another `--config`, and is scored on
validation queries, 50 images a class that nobody trains on; the data set's own queries are never
asked. `a+b` makes two changes at once. With `--then`, other runs go on from its weights: stage 2 as
it is, with a change, or the direct head for as long. Processes take the next experiment as they
become free, and build on what the GPU's kernels were compiled for once.
"""

import argparse
import itertools
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Lock
from pathlib import Path
from typing import Any

from benchmarks.long_tail_table import COSINE
from benchmarks.rows import append_row
from benchmarks.study_run import Continuation, Experiment, run_experiment
from engine.config import load_config
from utils.errors import UserError
from utils.parser import OneLineParser

STAGE_1 = "config/Cifar100_LT/stage_1.py"
STAGE_2 = "config/Cifar100_LT/stage_2_meta_embedding.py"
AUGMENTATION = "training_opt.augmentation"
CHANGES: dict[str, tuple[str, ...]] = {
    "none": (),
    "no_trivial_augment": (f"{AUGMENTATION}.trivial_augment=false",),
    "trained_statistics": ("networks.feat_model.fix_statistics=false",),
    "color_jitter": (f"{AUGMENTATION}.color_jitter=[0.3,0.3,0.3,0]",),
    "crops_from_.2": (f"{AUGMENTATION}.crop_scale=[0.2,1.0]",),
    "crops_from_.6": (f"{AUGMENTATION}.crop_scale=[0.6,1.0]",),
    "uniform_sampler": ("training_opt.sampler=uniform",),
    "logit_adjustment": (
        "training_opt.sampler=uniform",
        "criterions.classification.def_file=./loss/logit_adjustment.py",
    ),
    "class_balanced": (
        "training_opt.sampler=uniform",
        "criterions.classification.def_file=./loss/class_balanced.py",
    ),
    "label_smoothing_.1": ("criterions.classification.loss_params.label_smoothing=0.1",),
    "batch_32": ("training_opt.batch_size=32",),
    "batch_128": ("training_opt.batch_size=128",),
    "batch_256": (
        "training_opt.batch_size=256",
        "training_opt.optimizer.params.lr=2e-3",
        "networks.feat_model.optim_params.lr=4e-4",
    ),
    **{
        f"epochs_{count}": (f"training_opt.num_epochs={count}",)
        for count in (10, 12, 15, 20, 30, 60, 100)
    },
    **{
        f"{name}_end_{count}": (
            f"training_opt.final_epochs={count}",
            f"training_opt.final_augmentation={{trivial_augment: false{crops}}}",
        )
        for name, crops in (("plain", ""), ("whole", ", crop_scale: [1, 1], crop_ratio: [1, 1]"))
        for count in (3, 4, 5)
    },
    **{f"pixels_{size}": (f"training_opt.image_size={size}",) for size in (160, 192, 256)},
    "features_512": ("training_opt.feature_dim=512",),
    **{
        f"backbone_lr_{rate}": (f"networks.feat_model.optim_params.lr={rate}",)
        for rate in ("1e-5", "2e-5", "5e-5", "1e-4", "2e-4", "8e-4")
    },
    "heads_lr_2e-3": ("training_opt.optimizer.params.lr=2e-3",),
    "weight_decay_.05": ("training_opt.optimizer.params.weight_decay=0.05",),
    "weight_decay_.5": ("training_opt.optimizer.params.weight_decay=0.5",),
}
SHIPPED = ("epochs_30", "backbone_lr_5e-5")  # what stage 1 has; changes of other configs
AS_LONG = (  # a second schedule, of half the rates, whatever the first was changed to
    "training_opt.num_epochs=40",
    "training_opt.optimizer.params.lr=5e-4",
    "networks.feat_model.optim_params.lr=5e-5",
)
UNTRAINED = ("training_opt.num_epochs=0",)
PUBLISHED = (
    "networks.hash_head.params={}",
    "networks.hash_head.fresh=[hallucinator,selector]",
)
ADJUSTED = (*COSINE, "networks.hash_head.params.adjustment=0.6")
POWER = "networks.hash_head.params.power=0.5"
WHITENED = (
    "networks.hash_head.params.shrinkage=2",
    "networks.hash_head.params.temperature=20",
)
THEN: dict[str, Continuation] = {
    "direct": Continuation(STAGE_1, AS_LONG),
    "memory": Continuation(STAGE_2, (*AS_LONG, *PUBLISHED, "memory.dpp_samples=3")),
    "memory_k0": Continuation(STAGE_2, (*AS_LONG, *PUBLISHED)),
    "cosine_untrained": Continuation(STAGE_2, (*UNTRAINED, *COSINE)),
    "cosine": Continuation(STAGE_2, (*AS_LONG, *COSINE)),
    "cosine_heads": Continuation(STAGE_2, (*AS_LONG, *COSINE, "networks.feat_model.fix=true")),
    **{
        f"untrained_{name}_{value}": Continuation(
            STAGE_2, (*UNTRAINED, *COSINE, f"networks.hash_head.params.{name}={value}")
        )
        for name, value in (
            ("temperature", 7),
            ("temperature", 10),
            ("temperature", 20),
            ("temperature", 28),
            ("selector", 0.5),
            ("selector", 2),
            ("selector", 4),
        )
    },
    **{
        f"untrained_adjustment_{power}": Continuation(
            STAGE_2, (*UNTRAINED, *COSINE, f"networks.hash_head.params.adjustment={power}")
        )
        for power in (0.4, 0.6, 0.8, 1.0)
    },
    "untrained_power": Continuation(STAGE_2, (*UNTRAINED, *ADJUSTED, POWER)),
    "untrained_whitened": Continuation(STAGE_2, (*UNTRAINED, *ADJUSTED, *WHITENED)),
    "untrained_power_whitened": Continuation(STAGE_2, (*UNTRAINED, *ADJUSTED, POWER, *WHITENED)),
    **{
        f"untrained_power_whitened_{name}_{value}": Continuation(
            STAGE_2,
            (*UNTRAINED, *ADJUSTED, POWER, *WHITENED, f"networks.hash_head.params.{name}={value}"),
        )
        for name, value in (
            ("shrinkage", 1),
            ("shrinkage", 4),
            ("temperature", 14),
            ("temperature", 28),
            ("adjustment", 0),
            ("adjustment", 0.4),
            ("adjustment", 0.8),
        )
    },
}
Experiments = list[Experiment]


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 when an experiment failed, 2 for a user's mistake."""
    try:
        options = _options(arguments)
        experiments = plan(options)
        if options.dry_run:
            for each in experiments:
                print(
                    each.name,
                    *each.options,
                    *each.overrides,
                    *(f"-> {name}" for name in each.after),
                )
            return 0
        return execute(options, experiments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="python -m benchmarks.long_tail_study", description=__doc__)
    add = parser.add_argument
    add("--config", default=STAGE_1, help="the config that is changed")
    changes = [name for name in CHANGES if name not in SHIPPED]
    add("--changes", nargs="+", default=changes, metavar="NAME", help=", ".join(CHANGES))
    add("--then", nargs="+", default=[], choices=THEN, metavar="NAME", help=", ".join(THEN))
    add("--imbalance", nargs="+", type=float, default=[100], metavar="IF")
    add("--bits", nargs="+", type=int, default=[64], metavar="Q", help="code lengths")
    add("--seeds", nargs="+", type=int, default=[0], metavar="SEED")
    add("--opts", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="of all runs")
    add("--record", type=Path, help="CSV file that gets the rows")
    add("--gpus", type=int, default=1, help="how many to use; 0 for the CPU")
    add("--processes_per_gpu", type=int, default=1)
    add("--time_limit", type=float, metavar="SECONDS", help="start nothing that would end later")
    add("--dry_run", action="store_true", help="print what would be run")
    return parser.parse_args(arguments)


def plan(options: argparse.Namespace) -> Experiments:
    """The experiments asked for, a seed after the other.

    Raises:
        UserError: for a change that is not known or does not suit the config, or `--then` after
            another config's weights.
    """
    is_stage_1 = Path(options.config).resolve() == Path(STAGE_1).resolve()
    if options.then and not is_stage_1:
        raise UserError(f"--then goes on from {STAGE_1}; leave out --config {options.config}")
    cells = itertools.product(options.seeds, options.imbalance, options.bits, options.changes)
    method = "" if is_stage_1 else f"{Path(options.config).stem}: "
    after = {name: THEN[name] for name in options.then}
    experiments = [
        Experiment(
            f"{method}{change}",
            options.config,
            (
                "data.validation_per_class=50",
                f"training_opt.seed={seed}",
                f"training_opt.imbalance_factor={factor:g}",
                f"training_opt.code_length={bits}",
                *_changed(change),
            ),
            after,
            tuple(options.opts),
        )
        for seed, factor, bits, change in cells
    ]
    for each in experiments:
        load_config(each.config, [*each.options, *each.overrides])
    return experiments


def _changed(change: str) -> list[str]:
    names = change.split("+")
    for name in names:
        if name not in CHANGES:
            raise UserError(f"--changes {name}: unknown; the changes are {', '.join(CHANGES)}")
    return [option for name in names for option in CHANGES[name]]


def execute(options: argparse.Namespace, experiments: Experiments) -> int:
    """Run the experiments; each row is printed and recorded as it comes. Returns the status."""
    context = get_context("spawn")
    free: SimpleQueue[str] = context.SimpleQueue()
    devices = [str(number) for number in range(options.gpus)] or [""]
    workers = len(devices) * options.processes_per_gpu
    for number in range(workers):
        free.put(devices[number % len(devices)])
    deadline = time.time() + options.time_limit if options.time_limit else float("inf")
    failures = 0
    given = (free, context.Lock())
    with ProcessPoolExecutor(workers, context, initializer=_take, initargs=given) as pool:
        tasks = {pool.submit(_work, each, deadline, options.record): each for each in experiments}
        for task in as_completed(tasks):
            name = tasks[task].name
            try:
                if not task.result():
                    print(f"{name}: left out or cut short, the time is up", flush=True)
            except Exception as error:  # one experiment's, the others go on
                failures += 1
                print(f"{name}: failed, {type(error).__name__}: {error}", flush=True)
    return 1 if failures else 0


_lasted = 0.0  # seconds of the last experiment of this process
_writing: Lock  # of the record, by one process at a time


def _take(free: "SimpleQueue[str]", writing: Lock) -> None:
    """Give a new process of the pool its GPU, before torch looks for one, and the record's lock."""
    global _writing
    os.environ["CUDA_VISIBLE_DEVICES"] = free.get()
    _writing = writing


def _work(experiment: Experiment, deadline: float, record: Path | None) -> bool:
    """Run an experiment if the time is enough for one as the last; whether all of it was run."""
    global _lasted
    started = time.time()
    if started + _lasted > deadline:
        return False
    done = 0
    for row in run_experiment(experiment):
        with _writing:
            print(_line(row), flush=True)
            if record:
                append_row(record, row)
        done += 1
        if time.time() > deadline:
            break
    _lasted = time.time() - started
    return done == 1 + len(experiment.after)


def _line(row: dict[str, Any]) -> str:
    cell = f"IF {row['imbalance_factor']}, {row['code_length']} bits, seed {row['seed']}"
    groups = " ".join(row[f"map_{group}"] for group in ("many", "medium", "few"))
    return (
        f"{row['change']}, {cell}: MAP {row['map']} ({groups}), mirrored {row['map_flip']}, "
        f"accuracy {row['accuracy']}"
    )


if __name__ == "__main__":
    sys.exit(main())
