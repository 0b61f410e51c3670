"""Plain mini-batch training, for both stages."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.profiler import record_function
from tqdm import tqdm

from data.samplers import class_aware_batches, uniform_batches
from engine.accelerate import make_backward
from engine.bad_steps import BadSteps
from engine.build import build_criterions, build_optimizer, build_scheduler
from engine.checkpoint import BEST, load_checkpoint, load_networks
from engine.evaluate import validate
from engine.failures import explained
from engine.loss_tally import LossTally
from engine.memory import refresh_memory
from engine.model import make_augmentation
from engine.objective import Objective
from engine.run import Run
from engine.save_points import SavePoints, Verdict
from engine.training_state import (
    Training,
    advice,
    describe_checkpoint,
    images_per_second,
    restore,
    save,
)
from utils import distributed
from utils.environment import peak_gpu_memory
from utils.errors import UserError
from utils.seed import epoch_seed, set_random_states
from utils.stop_signals import SIGNALS, Stopped

LEAST_IMAGES = 2  # of a process in a step: batch statistics need them
logger = logging.getLogger("long_tail_hashing")


def train(run: Run, training: Training, resume: bool = False) -> None:
    """Train, validate every `evaluate_interval` epochs, and keep the best checkpoint.

    Without an epoch the weights stay, and a memory is filled beside them. Leaves the best weights
    in the model and in the run's folder.

    Raises:
        UserError: if there is nothing to resume, or it was another run's.
        Stopped: after a signal, when the state has been saved.
    """
    options = run.config.training_opt
    if resume:
        restore(run, training)
    else:
        with run.timed("train"):
            refresh_memory(run)
    training.save_points = SavePoints()
    with SIGNALS.deferred(), progress_bar(options.num_epochs, training.epoch) as bar:
        if options.num_epochs == 0:  # the memory is all that is new
            validate_and_save(run, training)
        for epoch in range(training.epoch, options.num_epochs):
            with run.timed("train"):
                losses = train_epoch(run, training, epoch)
                refresh_memory(run)
            training.epoch = epoch + 1
            log_epoch(run, training, losses)
            last = training.epoch == options.num_epochs
            if last or training.epoch % options.evaluate_interval == 0:
                validate_and_save(run, training)
            heed(run, training, training.save_points.now())
            bar.update()
            bar.set_postfix(loss=f"{sum(losses.values()):.3f}", map=f"{training.best_map:.4f}")
    take_best(run, training)


def take_best(run: Run, training: Training) -> dict[str, Any]:
    """Load the best checkpoint's weights into the model at the end of training; returns it."""
    distributed.wait()  # for rank 0 to have written it
    best = load_checkpoint(run.log_dir / BEST)
    load_networks(run.model, best, run.log_dir / BEST)
    run.checkpoint = describe_checkpoint(best, run.log_dir / BEST)
    logger.info("best validation MAP %.4f at epoch %d", training.best_map, training.best_epoch)
    logger.info("%s", describe_speed(run))
    return best


def build_training(run: Run) -> Training:
    """Losses, optimizer and scheduler of a run's config.

    Raises:
        UserError: if they cannot be built, or the batches are too small for the processes.
    """
    least, size = LEAST_IMAGES * distributed.world_size(), run.config.training_opt.batch_size
    if distributed.world_size() > 1 and size < least:
        raise UserError(
            f"training_opt.batch_size is {size}, expected at least {least}, {LEAST_IMAGES} for "
            "each process, whose batch statistics need them; raise it or use fewer processes"
        )
    split = run.dataset.split
    counts = torch.as_tensor(split.class_counts)
    criterions = build_criterions(run.config, run.dataset.num_classes, counts, run.device)
    objective = Objective(run.model, criterions, run.precision)
    optimizer = build_optimizer(run.config, run.model, criterions)
    backward = make_backward(objective, run.config.training_opt.accelerate, run.device)
    steps = len(_index_batches(run, epoch=0))
    scheduler = build_scheduler(run.config.training_opt, optimizer, steps)
    bad_steps = BadSteps(objective) if run.config.training_opt.on_bad_loss == "skip" else None
    return Training(criterions, objective, backward, optimizer, scheduler, bad_steps=bad_steps)


def train_epoch(run: Run, training: Training, epoch: int) -> dict[str, float]:
    """One pass over the training images; returns the mean of each weighted loss by name.

    Goes on within the epoch where `training` says so.

    Raises:
        UserError: if a loss is not finite; names it and the step.
        Stopped: after a signal, when the state has been saved.
    """
    torch.manual_seed(epoch_seed(run.config.training_opt.seed, epoch, distributed.rank()))
    train_mode(run)
    set_progress(training.objective, epoch, run.config.training_opt.num_epochs)
    if not training.step:
        training.tally = LossTally()
    batches = train_batches(run, epoch, training.step)
    if training.step and training.random_states:
        set_random_states(training.random_states, run.device)
    for images, labels in batches:
        training.tally.add(step(run, training, images, labels))
        training.step += 1
        if training.save_points:
            heed(run, training, training.save_points.after_step())
    distributed.average_statistics(training.objective)
    check_losses(training)
    training.step = 0
    return training.tally.means()


def train_batches(run: Run, epoch: int, done: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented images and labels of one epoch, drawn from the run's seed and the epoch.

    Of several processes each gets its share of every batch.

    Args:
        done: batches to leave out at the start; they are made, for what they draw from the seed.
            More than there are: fewer processes have one more.
    """
    options = run.config.training_opt
    seed = epoch_seed(options.seed, epoch, distributed.rank())
    final = epoch >= options.num_epochs - options.final_epochs
    augmentation = make_augmentation(run.config, run.model, True) if final else run.augmentation
    index_batches = distributed.share_of_batches(_index_batches(run, epoch))
    if done >= len(index_batches):
        return iter(())
    batches = run.dataset.batches(index_batches, augmentation, training=True, seed=seed)
    for _ in range(done):
        next(batches)
    return batches


def step(run: Run, training: Training, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """One step of gradient descent on a batch; returns each weighted loss by name.

    None if the step is left out because they, or the gradient, are not finite.
    """
    if training.bad_steps:
        training.bad_steps.remember()
    losses = training.backward(images, labels)
    if training.bad_steps and training.bad_steps.is_bad(losses):
        training.scheduler.step()
        return {}
    with record_function("optimizer"):
        clip = run.config.training_opt.gradient_clip
        if clip is not None:
            nn.utils.clip_grad_norm_(training.objective.parameters(), clip)
        training.optimizer.step()
        training.scheduler.step()
    return losses


def heed(run: Run, training: Training, verdict: Verdict) -> None:
    """Save the state if it is time, or if a signal asks for an end; then also stop.

    Raises:
        UserError: if a loss is not finite, instead of saving what came of it.
        Stopped: if a signal asks for it.
    """
    if not (verdict.save or verdict.stop):
        return
    check_losses(training)
    save(run, training)
    if verdict.stop:
        distributed.wait()  # for rank 0 to have saved: the first process that ends ends the others
        logger.info("saved %s", training.position)
        raise Stopped(verdict.stop)


def check_losses(training: Training) -> None:
    """Raise a UserError that names the first loss of the epoch that is NaN or infinite, if any.

    Steps that were left out are counted in the log, and an epoch of nothing else raises too.
    """
    tally, epoch = training.tally, training.epoch + 1
    bad = tally.first_bad()
    if bad:
        name, number = bad
        raise UserError(
            f"loss {name} is not finite at step {number} of epoch {epoch}; {advice(training)}"
        )
    if tally.skipped == tally.steps > 0:
        raise UserError(
            f"all {tally.steps} steps of epoch {epoch} had losses or gradients that are not "
            "finite; lower the rates"
        )


def train_mode(run: Run) -> None:
    """Training mode, but for fixed networks and statistics, which stay as they are."""
    run.model.train()
    for name, options in run.config.networks.items():
        network = run.model.get_submodule(name)
        if options.fix:
            network.eval()
        elif options.fix_statistics:
            for module in network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()


def set_progress(objective: Objective, epoch: int, num_epochs: int) -> None:
    """Tell every network and loss that asks for it which epoch of how many, from 0, begins.

    Their `set_progress` changes buffers in place: a captured step reads the old memory.
    """
    for module in objective.modules():
        tell = getattr(module, "set_progress", None)
        if tell is not None:
            tell(epoch, num_epochs)


def validate_and_save(run: Run, training: Training) -> None:
    """Validate, keep the checkpoint if it is the best so far, and the last one to resume from."""
    with run.timed("validate"):
        result = validate(run, training.encoders)
    scores = {"map": result.map, **{f"map_{k}": v for k, v in result.groups.items()}}
    for name, value in scores.items():
        if value is not None and run.writer:
            run.writer.add_scalar(f"validation/{name}", value, training.epoch)
    logger.info(
        "epoch %d: validation %s",
        training.epoch,
        ", ".join(f"{name} {value:.4f}" for name, value in scores.items() if value is not None),
    )
    best = result.map >= training.best_map  # of equals, the longer trained
    if best:
        training.best_map, training.best_epoch = result.map, training.epoch
    save(run, training, best)


def check_first_batch(run: Run, training: Training) -> None:
    """Send a batch through networks and losses, to find what does not fit before training.

    On a GPU it has the size of training's batches, whose kernels are then chosen once; else two.

    Raises:
        UserError: with the first line of what went wrong.
    """
    training.objective.eval()  # losses too: the check must leave no trace in them
    dataset = replace(run.dataset, num_workers=0)
    size = run.config.training_opt.batch_size // distributed.world_size()
    first = dataset.split.train[: max(2, size) if run.device.type == "cuda" else 2]
    images, labels = next(dataset.batches([first], run.augmentation))
    try:
        with torch.no_grad():
            training.objective(images, labels)
        training.objective.train()
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError,
            TypeError, ValueError) as error:  # fmt: skip
        reason = " ".join(str(error).split()) or "no reason given"
        raise explained(error, run.config) or UserError(
            f"networks, losses and data do not fit together ({type(error).__name__}: {reason}); "
            "check image_size, the networks' order and whether the losses suit the labels "
            f"({'several' if dataset.source.multi_label else 'one'} an image)"
        ) from error


def _index_batches(run: Run, epoch: int) -> list[NDArray[np.int64]]:
    options, dataset = run.config.training_opt, run.dataset
    if options.sampler == "class_aware":
        membership = dataset.source.membership()
        return class_aware_batches(
            dataset.split.train, membership, options.batch_size, options.seed, epoch
        )
    least = LEAST_IMAGES * distributed.world_size()
    return uniform_batches(dataset.split.train, options.batch_size, options.seed, epoch, least)


def progress_bar(epochs: int, done: int) -> tqdm:
    """A progress bar, where rank 0 has a terminal."""
    disable = None if distributed.is_main() else True
    return tqdm(total=epochs, initial=done, unit="epoch", disable=disable)


def describe_speed(run: Run) -> str:
    """One line: images a second over training so far, and the largest memory of the GPU."""
    line = f"trained on {run.images_per_second:.0f} images/s"
    if not run.config.training_opt.num_epochs:
        line = "nothing was trained"
    peak = peak_gpu_memory(run.device)
    return line if peak is None else f"{line}; peak GPU memory {peak:.1f} GiB"


def log_epoch(run: Run, training: Training, losses: dict[str, float]) -> None:
    """Log an epoch's losses and learning rates, and count the speed."""
    run.images_per_second = images_per_second(run, training)
    rates = {str(g["name"]): g["lr"] for g in training.optimizer.param_groups}
    logger.info(
        "epoch %d: %s", training.epoch, ", ".join(f"{n} {v:.4f}" for n, v in losses.items())
    )
    if training.tally.skipped:
        logger.warning(
            "epoch %d: %d of %d steps were left out, their losses or gradients not being finite",
            training.epoch, training.tally.skipped, training.tally.steps,
        )  # fmt: skip
    if run.writer:
        for name, value in losses.items():
            run.writer.add_scalar(f"loss/{name}", value, training.epoch)
        for name, rate in rates.items():
            run.writer.add_scalar(f"learning_rate/{name}", rate, training.epoch)
