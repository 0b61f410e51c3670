"""Network and database codes learned in turn: ADSH, and MAH and DIHN, which are built on it.

A turn draws images of the database, trains the network on them towards the codes of all, then
learns the codes anew from the network's (Jiang & Li, AAAI 2018). Queries, and database images that
were held out, are coded by the network, the others by what was learned.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.alternate_codes import Groups, Sample, database_view, make_sample, update_codes
from engine.build import LossOfLength
from engine.checkpoint import LAST, load_checkpoint, load_networks
from engine.class_codes import class_codes
from engine.coding import Encoded, Encoder, encode_lengths, encoders_by_length
from engine.config import RunConfig
from engine.model import collect_outputs
from engine.options import AlternateOptions
from engine.run import Run
from engine.save_points import SavePoints
from engine.train import (
    build_training,
    heed,
    log_epoch,
    progress_bar,
    take_best,
    train_epoch,
    validate_and_save,
)
from engine.training_state import Training, restore
from loss.adsh import ADSHLoss
from retrieval.codes import pack, unpack
from utils import distributed
from utils.errors import UserError
from utils.stop_signals import SIGNALS

_SAMPLE = 5  # random stream [seed, _SAMPLE, turn]; those of a split are 0 to 4


@dataclass
class Learned:
    """Database codes by image.

    Attributes:
        indices: (n,) images of the source; those whose codes stay come first.
        fixed: how many these are.
        codes: code length q → int8 (n, q) of -1 and +1, on the run's device; 0 before the first
            turn.
    """

    indices: NDArray[np.int64]
    fixed: int
    codes: dict[int, Tensor]

    def rows_of(self, images: NDArray[np.int64], total: int) -> NDArray[np.int64]:
        """The row of each of `images`, -1 where it has none, among a source's `total` images."""
        place = np.full(total, -1, dtype=np.int64)
        place[self.indices] = np.arange(len(self.indices))
        return place[images]


@dataclass
class Alternation:
    """The state of a run: `view` is the run as the network's turn sees it.

    There `dataset.split.train` are the drawn images, and labels are their places in the sample.
    """

    run: Run
    view: Run
    training: Training
    learned: Learned
    groups: Groups
    losses: dict[int, ADSHLoss]

    @property
    def options(self) -> AlternateOptions:
        """The config's section."""
        assert self.run.config.alternate is not None
        return self.run.config.alternate

    def draw(self, turn: int) -> Sample:
        """Draw the images of a turn and show them to the network."""
        total, count = len(self.learned.indices), self.options.samples
        rng = np.random.default_rng([self.run.config.training_opt.seed, _SAMPLE, turn])
        rows = np.sort(rng.choice(total, min(count, total), replace=False))
        images = self.learned.indices[rows]
        split = replace(self.run.dataset.split, train=images)
        places = torch.zeros(
            len(self.run.dataset.source), dtype=torch.int64, device=self.run.device
        )
        places[torch.as_tensor(images, device=self.run.device)] = torch.arange(
            len(rows), device=self.run.device
        )
        self.view.dataset = replace(self.run.dataset, split=split, labels=places)
        return make_sample(self.groups, rows, self.options.dissimilar)

    def state_losses(self, sample: Sample) -> None:
        """Tell each loss the database's codes as they are."""
        rows = torch.as_tensor(sample.rows, device=self.run.device)
        for length, loss in self.losses.items():
            codes = self.learned.codes[length]
            loss.set_sample(
                **database_view(self.groups, sample, codes),
                own=codes[rows].float(),
                learned=rows >= self.learned.fixed,
                database=len(codes),
            )

    def start_codes(self, sample: Sample) -> None:
        """Give every image whose code is to be learned the best code of its class."""
        first, of = self.learned.fixed, self.groups.of
        old = torch.bincount(of[:first], minlength=len(self.groups.sizes)).double()
        for length, codes in self.learned.codes.items():
            sums = codes.new_zeros(len(old), length, dtype=torch.float64)
            sums.index_add_(0, of[:first], codes[:first].double())
            found = class_codes(
                self.groups.sizes,
                length,
                float(sample.ratio),
                self.run.config.training_opt.seed,
                sums / old[:, None],  # NaN where no image has a code
            )
            codes[first:] = found.to(codes.device)[of[first:]]

    def learn_codes(self, sample: Sample) -> None:
        """The turn of the codes: from the network's, in evaluation mode, of the drawn images."""
        options = self.run.config.training_opt
        names = options.code_outputs
        images = self.learned.indices[sample.rows]
        run = self.run
        outputs = collect_outputs(
            run.model, run.dataset, images, run.augmentation, run.precision,
            tuple(names.values()), options.evaluation_batch_size, options.mirror_codes,
        )  # fmt: skip
        for length, loss in self.losses.items():
            update_codes(
                self.learned.codes[length],
                self.groups,
                sample,
                outputs[names[length]],
                loss.gamma,
                first=self.learned.fixed,
                sweeps=self.options.sweeps,
            )


def check_one_process() -> None:
    """Raise a UserError in one of several processes, which would each learn codes of their own."""
    if distributed.world_size() > 1:
        raise UserError("engine 'alternate' uses one process: run python main.py")


def build_alternation(run: Run, resume: bool = False) -> Alternation:
    """Networks, losses and codes of a run's config, the base run's codes and weights among them.

    Raises:
        UserError: for a base that does not fit, or losses without codes to learn.
    """
    assert run.config.alternate is not None
    base = None if resume else run.config.alternate.base
    learned = _new_codes(run)
    if base:
        try:
            checkpoint = load_checkpoint(base)
        except UserError as error:
            raise UserError(f"alternate.base: {error}") from error
        learned = _from_base(run, learned, checkpoint, base)
        load_networks(run.model, checkpoint, base)
    groups = _groups(run, learned)
    if run.config.alternate.start == "classes" and run.dataset.source.multi_label:
        raise UserError(
            "alternate.start is 'classes', but images have several labels; use 'network'"
        )
    view = replace(run, dataset=_drawable(run, learned))
    training = build_training(view)
    losses = _losses_of_codes(run.config, training)
    alternation = Alternation(run, view, training, learned, groups, losses)
    alternation.draw(0)
    return alternation


def train_alternately(alternation: Alternation, resume: bool = False) -> None:
    """Take the config's turns, validate every `evaluate_interval` of them, keep the best.

    Leaves the best weights in the model, the best codes in `learned`.

    Raises:
        UserError: if there is nothing to resume, or it was another run's.
        Stopped: after a signal, when the state has been saved.
    """
    run, view, training = alternation.run, alternation.view, alternation.training
    options = alternation.options
    view.writer = run.writer
    if resume:
        checkpoint = restore(view, training)
        alternation.learned = _stored_codes(run, checkpoint, run.log_dir / LAST)
        alternation.groups = _groups(run, alternation.learned)
    training.encoders = encoders(run, alternation.learned)
    training.keep = lambda: {"database_codes": _storable(run, alternation.learned)}
    training.save_points = SavePoints()
    first = training.epoch // options.epochs
    with SIGNALS.deferred(), progress_bar(options.iterations, first) as bar:
        for turn in range(first, options.iterations):
            losses = take_turn(alternation, turn)
            log_epoch(view, training, losses)
            done = turn + 1
            if done == options.iterations or done % run.config.training_opt.evaluate_interval == 0:
                validate_and_save(view, training)
            heed(view, training, training.save_points.now())
            bar.update()
            bar.set_postfix(loss=f"{sum(losses.values()):.3f}", map=f"{training.best_map:.4f}")
    run.images_per_second = view.images_per_second
    best = take_best(run, training)
    alternation.learned = _stored_codes(run, best, run.log_dir)


def take_turn(alternation: Alternation, turn: int) -> dict[str, float]:
    """Draw images, train the network on them, then learn the codes; returns the last losses.

    Codes that are not yet there come from the untrained network first, or from their classes.
    Goes on within the turn where `training` says so.
    """
    options, training = alternation.options, alternation.training
    with alternation.run.timed("train"):
        sample = alternation.draw(turn)
        begun = training.epoch + training.step > 0
        if not begun and options.start == "classes":
            alternation.start_codes(sample)
        elif not begun:
            alternation.learn_codes(sample)
        alternation.state_losses(sample)
        while training.epoch < (turn + 1) * options.epochs:
            losses = train_epoch(alternation.view, training, training.epoch)
            training.epoch += 1
        alternation.learn_codes(sample)
    return losses


def encoders(run: Run, learned: Learned) -> dict[int, Encoder]:
    """An encoder a code length: learned codes where an image has one, else the network's."""
    return encoders_by_length(run, partial(_encode, run, learned))


def stored_encoders(run: Run, checkpoint: dict[str, Any], path: Path) -> dict[int, Encoder]:
    """The encoders of a checkpoint's database codes and of the networks as they are.

    Raises:
        UserError: if the checkpoint holds no codes, or those of other images or lengths.
    """
    return encoders(run, _stored_codes(run, checkpoint, path))


def _encode(run: Run, learned: Learned, images: NDArray[np.int64]) -> dict[int, Encoded]:
    rows = learned.rows_of(images, len(run.dataset.source))
    known = rows >= 0
    if not known.any():
        return encode_lengths(run, images)
    rest = encode_lengths(run, images[~known]) if not known.all() else {}
    found = {}
    for length, codes in learned.codes.items():
        chosen = codes[torch.as_tensor(rows[known], device=codes.device)]
        packed = np.empty((len(images), -(-length // 8)), dtype=np.uint8)
        packed[known] = cast(Tensor, pack(chosen)).cpu().numpy()
        if rest:
            packed[~known] = rest[length].codes
        found[length] = Encoded(packed, None)
    return found


def _new_codes(run: Run) -> Learned:
    """Codes of all training images, none known yet."""
    images = run.dataset.split.train
    codes = {
        q: torch.zeros(len(images), q, dtype=torch.int8, device=run.device)
        for q in run.config.training_opt.code_lengths
    }
    return Learned(images, 0, codes)


def _from_base(run: Run, new: Learned, checkpoint: dict[str, Any], base: str) -> Learned:
    """The base's codes first, as they are, then what is new."""
    old = _stored_codes(run, checkpoint, Path(base))
    split = run.dataset.split
    asked = np.concatenate([split.validation, split.query, split.open_query])
    if np.isin(old.indices, asked).any():
        raise UserError(
            f"alternate.base '{base}' has codes of images that this run asks with; "
            "use the seed and the validation images that it was trained with"
        )
    fresh = np.setdiff1d(new.indices, old.indices)
    if not len(fresh):
        raise UserError(
            f"alternate.base '{base}' has a code of every training image: nothing has arrived; "
            "add classes to data.train_classes"
        )
    codes = {q: torch.cat([each, each.new_zeros(len(fresh), q)]) for q, each in old.codes.items()}
    return Learned(np.concatenate([old.indices, fresh]), len(old.indices), codes)


def _drawable(run: Run, learned: Learned) -> Any:
    """The data with as many training images as a turn draws, for the schedule to count steps."""
    assert run.config.alternate is not None
    count = run.config.alternate.samples
    split = replace(run.dataset.split, train=learned.indices[:count])
    return replace(run.dataset, split=split)


def _losses_of_codes(config: RunConfig, training: Training) -> dict[int, ADSHLoss]:
    """The loss that is told the database codes, by code length."""
    found: dict[int, ADSHLoss] = {}
    for criterion in training.criterions.values():
        loss = criterion.loss.loss if isinstance(criterion.loss, LossOfLength) else criterion.loss
        if isinstance(loss, ADSHLoss):
            if loss.code_length in found:
                raise UserError("engine 'alternate' takes one loss of database codes, got two")
            found[loss.code_length] = loss
        elif "labels" in criterion.inputs:
            raise UserError(
                f"engine 'alternate' numbers the drawn images in place of labels, so "
                f"criterions.{criterion.option} cannot read them; drop it"
            )
    if list(found) != config.training_opt.code_lengths:
        raise UserError(
            "engine 'alternate' needs a loss that is told the database codes, such as loss/adsh.py"
        )
    return found


def _groups(run: Run, learned: Learned) -> Groups:
    labels = torch.as_tensor(run.dataset.source.labels[learned.indices], device=run.device)
    return Groups(labels, run.dataset.num_classes)


def _storable(run: Run, learned: Learned) -> dict[str, Any]:
    """What a checkpoint holds of the codes: packed, with their images' names."""
    names = run.dataset.source.image_names
    return {
        "names": [str(names[index]) for index in learned.indices],
        "fixed": learned.fixed,
        "packed": {q: cast(Tensor, pack(codes)).cpu() for q, codes in learned.codes.items()},
    }


def _stored_codes(run: Run, checkpoint: dict[str, Any], path: Path) -> Learned:
    """The codes that a checkpoint holds, for this run's source and code lengths."""
    stored = checkpoint.get("database_codes")
    if stored is None:
        raise UserError(
            f"checkpoint {path} holds no database codes; take one of engine 'alternate'"
        )
    lengths = run.config.training_opt.code_lengths
    if sorted(stored["packed"]) != sorted(lengths):
        raise UserError(
            f"checkpoint {path} holds codes of {sorted(stored['packed'])} bits, expected {lengths}"
        )
    place = {name: index for index, name in enumerate(run.dataset.source.image_names)}
    absent = [name for name in stored["names"] if name not in place]
    if absent:
        raise UserError(
            f"checkpoint {path} holds codes of {len(absent)} images that the data lacks, such as "
            f"{absent[0]}; use the data it was trained on"
        )
    indices = np.array([place[name] for name in stored["names"]], dtype=np.int64)
    codes = {q: cast(Tensor, unpack(stored["packed"][q], q)).to(run.device) for q in lengths}
    return Learned(indices, int(stored["fixed"]), codes)
