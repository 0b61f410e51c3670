"""Shallow hashing: features of the training images are fitted, every image is encoded."""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.samplers import evaluation_batches
from engine.coding import Encoded, Encoder
from engine.failures import explained
from engine.plain_values import shown
from engine.run import Run
from retrieval.codes import binarize, pack
from utils.def_file import call, load_function
from utils.errors import UserError

logger = logging.getLogger("long_tail_hashing")


class RunFeatures:
    """Features of a run's images by index; those asked for last are kept for other code lengths.

    With `hasher.standardize` one mean is taken away and one deviation divided by: those of all
    numbers of the database's features.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.mean, self.deviation = 0.0, 1.0
        self._kept: tuple[NDArray[np.int64], NDArray[np.float32]] | None = None
        assert run.config.hasher is not None
        if run.config.hasher.standardize:
            self.mean, self.deviation = mean_and_deviation(self.of(run.dataset.split.database))
            self._kept = None

    def of(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Features (n, d) in the order of `indices`."""
        if self._kept is None or self._kept[0] is not indices:
            self._kept = None  # two sets at once may be more than there is memory for
            features = extract_features(self.run, indices)
            features -= np.float32(self.mean)
            features /= np.float32(self.deviation)
            self._kept = indices, features
        return self._kept[1]


def fit(run: Run) -> dict[int, Encoder]:
    """Fit the config's hasher on the training images' features, once a code length.

    Returns:
        an encoder a code length.
    """
    if run.dataset.source.provenance:
        logger.info("features: %s", run.dataset.source.provenance)
    train = run.dataset.split.train
    encoders: dict[int, Encoder] = {}
    with run.timed("train"):
        features = RunFeatures(run)
        for length in run.config.training_opt.code_lengths:
            hasher = _make_hasher(run, length)
            _fit(hasher, features.of(train), run.dataset.source.labels[train])
            encoders[length] = partial(_encode, hasher, features)
    return encoders


def _fit(hasher: Any, features: NDArray[np.float32], labels: NDArray[Any]) -> None:
    """Fit a hasher, which looks at its own params there.

    Raises:
        UserError: for whatever it raises.
    """
    try:
        hasher.fit(features, labels)
    except UserError as error:
        raise UserError(f"hasher: {error}") from error
    except Exception as error:  # of many kinds: any def_file may be a hasher
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"hasher: it cannot be fitted to these features: {reason}") from error


def mean_and_deviation(features: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and standard deviation of all numbers of `features` (n, d).

    Raises:
        UserError: all of them are equal.
    """
    mean = float(features.mean(dtype=np.float64))
    rows = (float(((row - mean) ** 2).sum(dtype=np.float64)) for row in features)
    deviation = float(np.sqrt(sum(rows) / features.size))
    if deviation == 0:
        raise UserError("hasher.standardize: all features of the database are equal")
    return mean, deviation


def _make_hasher(run: Run, code_length: int) -> Any:
    options = run.config.hasher
    assert options is not None
    create = load_function(options.def_file, "create_model", "hasher")
    supplied = {"code_length": code_length, "seed": run.config.training_opt.seed}
    hasher = call(create, options.params, supplied, "hasher")
    if not (hasattr(hasher, "fit") and hasattr(hasher, "encode")):
        raise UserError(
            f"hasher: {options.def_file} makes {shown(hasher)}, expected what can fit and encode"
        )
    return hasher


def _encode(hasher: Any, features: RunFeatures, run: Run, indices: NDArray[np.int64]) -> Encoded:
    return Encoded(np.asarray(pack(binarize(hasher.encode(features.of(indices))))), None)


def extract_features(run: Run, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Features (n, d) of the images of `indices`, as `feature_batches` gives them."""
    batches = evaluation_batches(indices, run.config.training_opt.evaluation_batch_size)
    return torch.cat([rows.float() for rows in feature_batches(run, batches)]).cpu().numpy()


@torch.inference_mode()
def feature_batches(run: Run, index_batches: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
    """Features (B, d) of each batch, on the device, from the networks in evaluation mode.

    Raises:
        UserError: the networks do not take the data, or give anything but one row an image.
    """
    run.model.eval()
    for images, _ in run.dataset.batches(index_batches, run.augmentation):
        try:
            with run.precision():
                rows = run.model(images)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise explained(error, run.config) or UserError(
                f"networks and data do not fit together ({type(error).__name__}: {reason}); "
                "check image_size and the networks; features of a file need none"
            ) from error
        if not isinstance(rows, Tensor) or rows.ndim != 2:
            found = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise UserError(
                f"the networks give {found}, expected one row of features an image (B, d); use"
                " models/backbone.py or models/gist.py"
            )
        yield rows
