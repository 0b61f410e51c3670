"""What the command line asks for: train and test, test alone, check the data, or a smoke run."""

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from data.check import check_source
from data.faults import DataError
from data.protocol import load_protocol
from engine import shallow
from engine.alternate import (
    build_alternation,
    check_one_process,
    encoders,
    stored_encoders,
    train_alternately,
)
from engine.build import check_config_parts
from engine.checkpoint import (
    BEST,
    LAST,
    check_same_config,
    check_split,
    load_checkpoint,
    load_networks,
)
from engine.coding import network_encoders
from engine.config import RunConfig
from engine.dataset import open_source
from engine.evaluate import check_validation_images, test
from engine.open_set import check_open_queries
from engine.profile import TRACE, profile_steps
from engine.recipe import checkpoint_recipe
from engine.records import append_record, check_record
from engine.run import Run, open_run, run_folder, write_identity
from engine.smoke import smoke_configs
from engine.train import build_training, check_first_batch, train
from engine.training_state import describe_checkpoint
from utils.distributed import is_main
from utils.errors import UserError
from utils.folder_lock import check_unlocked

logger = logging.getLogger("long_tail_hashing")


def train_and_test(
    config: RunConfig, *, resume: bool = False, open_set: bool = False, record: str | None = None
) -> dict[str, Any]:
    """Train a config, test the best checkpoint, and return metrics.json's values.

    Raises:
        UserError: for a mistake in config, data or weights, before anything is written; later if
            disk or memory run out, or training diverges.
        Stopped: after a signal.
    """
    check_config_parts(config)
    if is_main():
        check_unlocked(Path(config.training_opt.log_dir))
    if config.engine == "alternate":
        check_one_process()
    if record:
        check_record(record)
    if resume:
        _check_resumable(config)
    run = open_run(config, initial_weights=not resume)
    if resume:
        run.recipe = load_checkpoint(run.log_dir / LAST).get("recipe", "")
    if config.engine != "shallow":
        check_validation_images(run)
    if open_set:
        check_open_queries(run)
    training = build_training(run) if config.engine == "minibatch" else None
    alternation = build_alternation(run, resume) if config.engine == "alternate" else None
    if training:
        check_first_batch(run, training)
    if alternation:
        check_first_batch(alternation.view, alternation.training)
    with run_folder(run, fresh=not resume):
        write_identity(run)
        if training:
            train(run, training, resume)
            metrics = test(run, network_encoders(run), open_set)
        elif alternation:
            train_alternately(alternation, resume)
            metrics = test(run, encoders(run, alternation.learned), open_set)
        else:
            metrics = test(run, shallow.fit(run), open_set)
    return _recorded(run, metrics, record, resume)


def test_only(
    config: RunConfig,
    *,
    checkpoint: str | None = None,
    open_set: bool = False,
    record: str | None = None,
) -> dict[str, Any]:
    """Test a checkpoint (by default the run's own best) without training.

    Raises:
        UserError: also if the checkpoint was trained on another split or does not fit.
    """
    check_config_parts(config)
    if config.engine == "shallow":
        raise UserError("--test: a shallow method keeps no checkpoint; run it without --test")
    own = Path(config.training_opt.log_dir) / BEST
    path = Path(checkpoint) if checkpoint else own
    if own.is_file() and path.resolve() != own.resolve():
        raise UserError(
            f"--checkpoint {path}: {own.parent} holds the figures of its own checkpoint; "
            "give the test a folder with --opts training_opt.log_dir=FOLDER"
        )
    weights = load_checkpoint(path)
    run = open_run(config, initial_weights=False)
    check_split(weights, run.dataset, path)
    load_networks(run.model, weights, path)
    if open_set:
        check_open_queries(run)
    run.checkpoint = describe_checkpoint(weights, path)
    run.recipe = checkpoint_recipe(config, weights)
    if path.resolve() == own.resolve():
        _recall_training_time(run)
    if config.engine == "alternate":
        found = stored_encoders(run, weights, path)
    else:
        found = network_encoders(run)
    with run_folder(run):
        metrics = test(run, found, open_set)
    return _recorded(run, metrics, record)


def check_data(config: RunConfig) -> bool:
    """Print what the config's data holds and what is wrong with it; whether all is well."""
    check_config_parts(config)
    data, seed = config.data, config.training_opt.seed
    protocol = load_protocol(data.protocol) if data.protocol else None
    try:
        source = open_source(config)
    except DataError as error:
        print("\n".join(error.faults))
        return False
    report = check_source(source, protocol, seed, data.on_leak)
    print("\n".join(report.lines()))
    return report.ok


def profile(config: RunConfig) -> None:
    """Print where the time of a training step goes, and write a trace into the run's folder.

    Raises:
        UserError: as `train_and_test`, and for a method without training steps.
    """
    check_config_parts(config)
    if config.engine != "minibatch":
        raise UserError(f"--profile: engine '{config.engine}' has no training steps to trace")
    run = open_run(config)
    print(profile_steps(run))
    print(f"trace: {run.log_dir / TRACE}")


def smoke(config: RunConfig) -> None:
    """Train two steps of everything and test, then test again, in a folder thrown away."""
    check_config_parts(config)
    with tempfile.TemporaryDirectory() as folder:
        for small in smoke_configs(config, Path(folder)):
            open_set = bool(small.data.open_classes)
            train_and_test(small, open_set=open_set)
            if config.engine != "shallow":
                test_only(small, open_set=open_set)
    print(f"{config.path}: smoke run passed")


def is_finished(config: RunConfig) -> bool:
    """Whether a run's folder holds the figures of the whole of it; if of a part, it can be resumed.

    Raises:
        UserError: if it holds a run of other options, which can not.
    """
    folder = Path(config.training_opt.log_dir)
    last, metrics = folder / LAST, folder / "metrics.json"
    if config.engine == "shallow" or not last.is_file():
        return config.engine == "shallow" and metrics.is_file()
    checkpoint = load_checkpoint(last)
    check_same_config(checkpoint, config, last)
    if checkpoint["epoch"] < config.training_opt.num_epochs or not metrics.is_file():
        return False
    return metrics.stat().st_mtime >= last.stat().st_mtime


def record_finished(config: RunConfig, record: str) -> None:
    """Add the row of a finished run unless it is there: the run may have been killed before.

    Raises:
        UserError: if rows cannot be added, or its figures are damaged.
    """
    check_record(record)
    path = Path(config.training_opt.log_dir) / "metrics.json"
    try:
        _append(config, json.loads(path.read_text(encoding="utf-8")), record, resumed=True)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds no figures of a run; test it anew with --test") from error


def can_resume(config: RunConfig) -> bool:
    """Whether a run's folder holds what `--resume` goes on from."""
    return (Path(config.training_opt.log_dir) / LAST).is_file()


def _check_resumable(config: RunConfig) -> None:
    """Raise a UserError unless the run's folder holds a checkpoint of the same options."""
    path = Path(config.training_opt.log_dir) / LAST
    if config.engine == "shallow":
        raise UserError("--resume: a shallow method has nothing to resume; run it anew")
    if not can_resume(config):
        raise UserError(f"--resume: {path.parent} holds no {LAST}; train it first")
    check_same_config(load_checkpoint(path), config, path)


def _recall_training_time(run: Run) -> None:
    """Take the seconds of training from the figures that the run left when it was trained."""
    path = run.log_dir / "metrics.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        before = found["runs"][0] if "runs" in found else found
        if before["split_digest"] == run.dataset.digest:
            names = before["seconds"].keys() & {"train", "validate"}
            run.seconds.update({name: before["seconds"][name] for name in names})
            run.images_per_second = before["images_per_second"]
    except (OSError, ValueError, LookupError, TypeError):
        logger.info("%s gives no training time", path)


def _recorded(
    run: Run, metrics: dict[str, Any], record: str | None, resumed: bool = False
) -> dict[str, Any]:
    if record and is_main():
        _append(run.config, metrics, record, resumed)
    logger.info("figures and codes are in %s", run.log_dir)
    return metrics


def _append(config: RunConfig, metrics: dict[str, Any], record: str, resumed: bool) -> None:
    for each in metrics.get("runs", [metrics]):  # one a code length
        append_record(record, each, config.to_dict(), resumed)
