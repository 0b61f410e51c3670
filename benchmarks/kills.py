"""Runs of the digits that are killed (SIGKILL) at random moments, and resumed until they end.

Python is started once: each attempt is a fork of this process, which has imported everything and
started no threads. State is saved fifty times a second instead of once a minute, so that saves
are killed too, between steps, at validations and in the middle of a file; a part of the kills waits
for a file that is being written. Pictures are left out, which cost seconds and are no state.
"""

import json
import os
import time
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch

import main
from benchmarks.fault_findings import Finding
from engine import evaluate, save_points
from engine.checkpoint import BEST, LAST, load_checkpoint
from engine.config import load_config
from engine.run import open_run
from engine.train import build_training
from utils.errors import UserError

CONFIG = "config/Digits_LT/stage_1.py"
OPTIONS = [
    "training_opt.num_epochs=12",
    "training_opt.evaluate_interval=3",
    "training_opt.device=cpu",
    "networks.feat_model.params.width=8",
]
SAVE_SECONDS = 0.02
AIMED = 0.3  # share of the kills that wait for a save
STRETCH = 0.35  # of a run at most between two kills: one is killed several times, anywhere
LONGEST = 120.0  # seconds of an attempt, which takes two


@dataclass
class Tried:
    """What the kills have met so far."""

    failures: list[str] = field(default_factory=list)
    kills: int = 0
    in_saves: int = 0  # left half a file
    within_epochs: int = 0  # left a position within an epoch
    before_first: int = 0  # left no checkpoint yet
    chains: int = 0
    finished: int = 0


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run: its results, and the seconds from its start to training and its end."""

    results: dict[str, Any]
    training: float
    end: float


def run(count: int, seed: int, folder: Path) -> Finding:
    """Kill runs `count` times in all, and let each end that a kill left unfinished."""
    started = time.monotonic()
    _import_everything()
    rng = np.random.default_rng([seed, count])
    whole = _uninterrupted(folder)
    tried = Tried()
    while tried.kills < count:
        _chain(folder / f"run_{tried.chains}", count, whole, rng, tried)
        tried.chains += 1
    return Finding(
        "kills",
        tried.kills,
        tried.failures,
        time.monotonic() - started,
        {
            "runs": tried.chains,
            "equal_ends": tried.finished,
            "in_a_save": tried.in_saves,
            "within_an_epoch": tried.within_epochs,
            "before_the_first_save": tried.before_first,
            "seconds_of_a_run": round(whole.end, 2),
        },
    )


def _import_everything() -> None:
    """What a run does before its first step, so that forks find it done."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    build_training(open_run(load_config(CONFIG, OPTIONS)))


def _uninterrupted(folder: Path) -> Whole:
    """Train twice: the first time fills caches, the second is as long as those to be killed."""
    for name in ("first", "whole"):
        began = time.time()
        process = _start(folder / name, resume=False)
        process.join(LONGEST)
        if process.exitcode != 0:
            raise UserError(f"the digits run fails without being killed: {_said(folder / name)}")
    stamps = [(folder / "whole" / each).stat().st_mtime for each in ("config.yaml", "metrics.json")]
    return Whole(_results(folder / "whole"), *(stamp - began for stamp in stamps))


def _chain(folder: Path, count: int, whole: Whole, rng: np.random.Generator, tried: Tried) -> None:
    """One run, killed and resumed until it ends or `count` is reached; then it may end."""
    before: tuple[int, int] | None = None
    while True:
        process = _start(folder, resume=(folder / LAST).exists())
        if tried.kills < count:
            _wait(process, folder, whole, rng)
        else:
            process.join(LONGEST)
        ended = not process.is_alive()
        process.kill()
        process.join()
        if ended:
            tried.failures += _wrong_end(process, folder, whole, tried)
            return
        tried.kills += 1
        tried.in_saves += any(folder.glob(".tmp-*.pth"))
        position, wrong = _position(folder, before)
        if wrong:
            tried.failures.append(f"kill {tried.kills}, run {tried.chains}: {wrong}")
            return
        tried.within_epochs += position is not None and position[1] > 0
        tried.before_first += position is None
        before = position


def _start(folder: Path, resume: bool) -> BaseProcess:
    arguments = ["--config", CONFIG, *(["--resume"] if resume else [])]
    arguments += ["--opts", f"training_opt.log_dir={folder}", *OPTIONS]
    process = get_context("fork").Process(target=_train, args=(arguments, folder))
    process.start()
    return process


def _train(arguments: list[str], folder: Path) -> None:
    """What a forked process does; its output goes beside the run's folder."""
    output = os.open(folder.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    save_points.SAVE_SECONDS = SAVE_SECONDS
    evaluate.write_results = lambda *_: None
    os._exit(main.main(arguments))


def _wait(process: BaseProcess, folder: Path, whole: Whole, rng: np.random.Generator) -> None:
    """Wait for the moment of a kill, or for the end."""
    if rng.random() >= AIMED:
        process.join(whole.training + rng.uniform(0, STRETCH) * (whole.end - whole.training))
        return
    for _ in range(rng.integers(1, 8)):
        _until(process, folder, True)
        _until(process, folder, False)
    _until(process, folder, True)
    time.sleep(rng.uniform(0, 0.005))


def _until(process: BaseProcess, folder: Path, being_written: bool) -> None:
    """Wait until a checkpoint is being written, or is not, or the process has ended."""
    while process.is_alive() and any(folder.glob(".tmp-*.pth")) != being_written:
        time.sleep(0.0005)


def _position(
    folder: Path, before: tuple[int, int] | None
) -> tuple[tuple[int, int] | None, str | None]:
    """Where the last checkpoint stands, and what is wrong with the checkpoints if anything is."""
    found = None
    for name in (BEST, LAST):
        try:
            if (folder / name).exists():
                values = load_checkpoint(folder / name)
                found = (values["epoch"], values.get("step", 0)) if name == LAST else found
        except UserError as error:
            return None, str(error)
    if before is not None and (found is None or found < before):
        return found, f"{LAST} was of epoch and step {before}, then of {found}"
    return found, None


def _wrong_end(process: BaseProcess, folder: Path, whole: Whole, tried: Tried) -> list[str]:
    """What is wrong with a run that has ended, in a line."""
    where = f"run {tried.chains}, after {tried.kills} kills in all"
    if process.exitcode != 0:
        return [f"{where}: exit status {process.exitcode}: {_said(folder)}"]
    results = _results(folder)
    different = [name for name in results if not _equal(results[name], whole.results[name])]
    strays = [path.name for path in folder.glob(".tmp-*")]
    if different or strays:
        return [f"{where}: {', '.join(different + strays)} differ or are left over"]
    tried.finished += 1
    return []


def _results(folder: Path) -> dict[str, Any]:
    """Final figures and weights."""
    metrics = json.loads((folder / "metrics.json").read_text())
    last, best = (load_checkpoint(folder / name) for name in (LAST, BEST))
    return {"map": metrics["map"], "last": last["networks"], "best": best["state_dict_best"]}


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def _said(folder: Path) -> str:
    """The last line that a run printed."""
    lines = folder.with_suffix(".txt").read_text().strip().splitlines()
    return lines[-1] if lines else "it said nothing"
