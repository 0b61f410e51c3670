"""Train a config, perhaps go on with others from its weights, and score on validation queries."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from engine.checkpoint import BEST
from engine.coding import encode
from engine.config import RunConfig, load_config
from engine.evaluate import validate
from engine.run import Run, open_run
from engine.train import build_training, train
from utils.environment import environment


@dataclass(frozen=True)
class Continuation:
    """A config that starts from the trained weights, with its options."""

    config: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """One change of a config, and what goes on from its weights, by name.

    overrides: options of all of these runs, after their own.
    """

    name: str
    config: str
    options: tuple[str, ...]
    after: Mapping[str, Continuation]
    overrides: tuple[str, ...] = ()


def run_experiment(experiment: Experiment) -> Iterator[dict[str, Any]]:
    """Train and yield a row of figures for the change, then one for each continuation.

    The queries of the data set are not asked: validation queries are searched in the database
    without them. Nothing is left on the disk.
    """
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "first"
        options = (*experiment.options, *experiment.overrides)
        yield _measure(_config(experiment.config, options, first), experiment.name)
        for name, each in experiment.after.items():
            weights = [
                f"networks.{network}.weights={first / BEST}"
                for network in load_config(each.config).networks
            ]
            options = (*experiment.options, *each.options, *experiment.overrides, *weights)
            config = _config(each.config, options, Path(folder) / "after")
            yield _measure(config, f"{experiment.name}; then {name}")


def _config(path: str, options: tuple[str, ...], log_dir: Path) -> RunConfig:
    config = load_config(path, [*options, f"training_opt.log_dir={log_dir}"])
    epochs = config.training_opt.num_epochs
    config.training_opt.evaluate_interval = max(1, epochs)  # the last epoch counts
    return config


def _measure(config: RunConfig, name: str) -> dict[str, Any]:
    run = open_run(config)
    run.log_dir.mkdir(exist_ok=True)
    train(run, build_training(run))
    options = config.training_opt
    found, mirrored = (_validate(run, mirror) for mirror in (False, True))
    about = environment(run.device)
    return {
        "change": name,
        "seed": options.seed,
        "imbalance_factor": f"{options.imbalance_factor:g}",
        "code_length": options.code_length,
        "validation_queries": len(run.dataset.split.validation),
        "map": f"{found.map:.4f}",
        **{f"map_{group}": _short(found.groups.get(group)) for group in ("many", "medium", "few")},
        "accuracy": _short(_accuracy(run)),
        "map_flip": f"{mirrored.map:.4f}",
        "gpu": about["gpu"],
        "commit": about["commit"],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _validate(run: Run, mirror: bool) -> Any:
    run.config.training_opt.mirror_codes = mirror
    return validate(run)


def _accuracy(run: Run) -> float | None:
    """Share of validation queries that the classifier puts into their class, if there is one."""
    run.config.training_opt.mirror_codes = False
    queries = run.dataset.split.validation
    logits = encode(run, queries).logits
    if logits is None:
        return None
    return float(np.mean(logits.argmax(1) == run.dataset.source.labels[queries]))


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
