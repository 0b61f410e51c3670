"""What training changes, and the checkpoints that it is kept in and taken up from.

The last one holds a position within training, between two steps of it or two epochs, and is
replaced at least once a minute; the best one holds the weights that validation preferred.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from engine.accelerate import Backward
from engine.bad_steps import BadSteps
from engine.build import Criterion
from engine.checkpoint import (
    BEST,
    LAST,
    check_split,
    load_checkpoint,
    load_network,
    load_networks,
    network_states,
    save_checkpoint,
)
from engine.coding import Encoder
from engine.event_writer import go_on_after
from engine.loss_tally import LossTally
from engine.objective import Objective
from engine.preprocessing import preprocessing
from engine.run import Run
from engine.save_points import SavePoints
from utils import distributed
from utils.errors import UserError
from utils.seed import random_states, set_random_states

# What Python raises at values that are not of the kind, or not in the place, that is expected.
DAMAGE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
logger = logging.getLogger("long_tail_hashing")


@dataclass
class Training:
    """The state that training changes, beside the model's weights.

    `epoch` epochs are finished, and of the next one `step` steps. If all its steps are, what ends
    an epoch (the memory, the codes, the validation) is still to be done.
    """

    criterions: dict[str, Criterion]
    objective: Objective
    backward: Backward
    optimizer: Optimizer
    scheduler: LRScheduler
    epoch: int = 0
    step: int = 0
    tally: LossTally = field(default_factory=LossTally)  # of the epoch under way
    best_epoch: int = 0
    best_map: float = -1.0
    encoders: Mapping[int, Encoder] | None = None  # for validation; None: the networks'
    keep: Callable[[], dict[str, Any]] = dict  # what else checkpoints hold
    bad_steps: BadSteps | None = None  # finds the steps to leave out; None: none are
    save_points: SavePoints | None = None  # None: nothing is saved within an epoch
    random_states: dict[str, Any] | None = None  # to go on from within the epoch
    saved: str = ""  # the position of the last checkpoint, "" before there is one

    @property
    def position(self) -> str:
        """Where training is, in words."""
        return f"epoch {self.epoch}" + (f" and {self.step} steps" if self.step else "")


def save(run: Run, training: Training, best: bool = False) -> None:
    """Write the last checkpoint, and first the best one if this is it; of all processes at once.

    Raises:
        UserError: if it cannot be written, or weights are not finite; the old ones stay.
    """
    own = distributed.gather_objects(_own_state(run, training))
    if distributed.is_main():
        states = network_states(run.model)
        _check_finite(states, training)
        about = _about(run, training)
        if run.writer:
            run.writer.flush()  # what is written of finished epochs outlives a crash as they do
        if best:
            save_checkpoint(run.log_dir / BEST, {"state_dict_best": states, **about})
        save_checkpoint(
            run.log_dir / LAST,
            {
                "networks": states,
                "losses": {n: c.loss.state_dict() for n, c in training.criterions.items()},
                "optimizer": _optimizer_state(training),
                "scheduler": training.scheduler.state_dict(),
                "seconds": run.seconds_so_far(),
                "step": training.step,
                "processes": own,
                **about,
            },
        )
    training.saved = training.position
    if training.save_points:
        training.save_points.saved()


def restore(run: Run, training: Training) -> dict[str, Any]:
    """Take up the last checkpoint of the run's folder; returns it.

    Raises:
        UserError: if there is none, it is another run's, or damaged.
    """
    path = run.log_dir / LAST
    checkpoint = load_checkpoint(path)
    check_split(checkpoint, run.dataset, path)
    load_networks(run.model, checkpoint, path)
    try:
        _restore_shared(run, training, checkpoint, path)
        _restore_own(run, training, checkpoint.get("processes", []))
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"checkpoint {path} holds no state that training can go on from "
            f"({type(error).__name__}: {reason}); is it damaged? train anew"
        ) from error
    training.saved = training.position
    if run.writer:
        go_on_after(run.writer, training.epoch)
    logger.info("resumed after %s", training.position)
    return checkpoint


def _restore_shared(run: Run, training: Training, checkpoint: dict[str, Any], path: Path) -> None:
    """Take up what all processes have in common, beside the networks."""
    for name, criterion in training.criterions.items():
        load_network(criterion.loss, checkpoint["losses"].get(name, {}), f"{path}: {name}")
    optimizer, scheduler = training.optimizer, training.scheduler
    _check_alike(checkpoint["scheduler"], scheduler.state_dict(), "scheduler")
    groups, own = checkpoint["optimizer"]["param_groups"], optimizer.state_dict()["param_groups"]
    _check_alike(groups, own, "optimizer")
    for found, expected in zip(groups, own, strict=True):
        if expected.keys() - found.keys():
            raise KeyError(f"optimizer.{min(expected.keys() - found.keys())}")
    for found, order in zip(groups, _module_order(training), strict=True):
        numbers = dict(zip(order, found["params"], strict=True))
        found["params"] = [numbers[place] for place in range(len(order))]
    optimizer.load_state_dict(checkpoint["optimizer"])
    _check_moments(optimizer)
    scheduler.load_state_dict(checkpoint["scheduler"])
    training.epoch, training.step = checkpoint["epoch"], checkpoint.get("step", 0)
    if min(training.epoch, training.step) < 0:
        raise ValueError(f"epoch {training.epoch}, step {training.step}")
    training.best_epoch, training.best_map = checkpoint["best_epoch"], checkpoint["best_map"]
    run.seconds.update(checkpoint["seconds"])
    run.images_per_second = images_per_second(run, training)


def _optimizer_state(training: Training) -> dict[str, Any]:
    """The optimizer's state, with the parameters of a group in the order of `_module_order`."""
    state = training.optimizer.state_dict()
    for group, order in zip(state["param_groups"], _module_order(training), strict=True):
        group["params"] = [group["params"][place] for place in order]
    return state


def _module_order(training: Training) -> list[list[int]]:
    """Of each group the places of its parameters, in the order in which the modules have them.

    That is how checkpoints have them: the order in the optimizer is no part of a run.
    """
    known = {parameter: number for number, parameter in enumerate(training.objective.parameters())}
    numbers = [[known[each] for each in g["params"]] for g in training.optimizer.param_groups]
    return [sorted(range(len(each)), key=each.__getitem__) for each in numbers]


def _check_alike(found: Any, own: Any, where: str) -> None:
    """Refuse values of other kinds than `own`, as far as both have them: versions differ."""
    if isinstance(own, dict) and isinstance(found, dict):
        for key in own.keys() & found.keys():
            _check_alike(found[key], own[key], f"{where}.{key}")
    elif isinstance(own, list | tuple) and isinstance(found, list | tuple):
        for one, other in zip(found, own, strict=True):
            _check_alike(one, other, where)
    elif own is not None:
        numbers = isinstance(own, int | float) and isinstance(found, int | float)
        if not (numbers or isinstance(found, type(own))):
            raise TypeError(f"{where} is of type {type(found).__name__}")


def _check_moments(optimizer: Optimizer) -> None:
    """Refuse moments of other shapes than the parameters, missing ones, and fewer steps than 0."""
    known = [(parameter, state) for parameter, state in optimizer.state.items() if state]
    for parameter, state in known:
        if {n: type(v) for n, v in state.items()} != {n: type(v) for n, v in known[0][1].items()}:
            raise ValueError("parameters have other moments than each other")
        if state.get("step", 0) < 0:
            raise ValueError(f"step {float(state['step']):g}")
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape not in ((), parameter.shape):
                raise ValueError(f"{name} is of shape {tuple(value.shape)}")


def images_per_second(run: Run, training: Training) -> float:
    """The speed of the finished epochs."""
    return len(run.dataset.split.train) * training.epoch / run.seconds["train"]


def describe_checkpoint(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """Which checkpoint was tested: its file, epoch and validation MAP."""
    epoch, score = checkpoint.get("best_epoch"), checkpoint.get("best_map")
    return {"path": str(path), "epoch": epoch, "validation_map": score}


def _own_state(run: Run, training: Training) -> dict[str, Any]:
    """What is a process's own: random states and, within an epoch, sums and batch statistics."""
    state: dict[str, Any] = {"random": random_states(run.device)}
    if training.step:
        state["tally"] = training.tally.state()
        if distributed.world_size() > 1:
            buffers = _own_buffers(training.objective)
            state["buffers"] = {name: each.detach().cpu() for name, each in buffers.items()}
    return state


def _restore_own(run: Run, training: Training, states: list[dict[str, Any]]) -> None:
    """Take up what `_own_state` gave, unless other processes were than are now.

    Then what they shared goes on, with random numbers and a mean of losses of its own.
    """
    training.tally, training.random_states = LossTally(), None
    if len(states) != distributed.world_size():
        return
    own = states[distributed.rank()]
    set_random_states(own["random"], run.device)
    if training.step:
        training.random_states = own["random"]
        training.tally = LossTally.restored(own["tally"], run.device)
        buffers = _own_buffers(training.objective)
        for name, value in own.get("buffers", {}).items():
            buffers[name].copy_(value)


def _own_buffers(objective: Objective) -> dict[str, Tensor]:
    """Buffers that follow a process's own images: batch statistics, and what losses keep."""
    found = {f"losses.{name}": each for name, each in objective.losses.named_buffers()}
    for name, module in objective.model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            found |= {f"{name}.{key}": each for key, each in module.named_buffers()}
    return found


def _check_finite(states: dict[str, dict[str, Tensor]], training: Training) -> None:
    """Refuse to keep weights that a step spoilt whose loss was still finite."""
    for network, state in states.items():
        for name, value in state.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise UserError(
                    f"{network}.{name} is not finite after {training.position}, though the losses "
                    f"({', '.join(training.criterions)}) were; {advice(training)}"
                )


def advice(training: Training) -> str:
    """What to do about losses or weights that are not finite."""
    good = f"{LAST} is of {training.saved}, before it" if training.saved else "nothing was saved"
    return (
        f"{good}; lower the rates, or set training_opt.on_bad_loss=skip to go on without such steps"
    )


def _about(run: Run, training: Training) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    dataset = run.dataset
    return {
        "epoch": training.epoch,
        "best_epoch": training.best_epoch,
        "best_map": training.best_map,
        "config": run.config.to_dict(),
        "recipe": run.recipe,
        "source": dataset.source.name,
        "split_digest": dataset.digest,
        "class_names": list(dataset.source.class_names),
        "class_counts": dataset.split.class_counts.tolist(),
        "preprocessing": preprocessing(run),
        **training.keep(),
    }
