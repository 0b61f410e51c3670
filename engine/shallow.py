"""Shallow hashing: features of the training images are fitted, every image is encoded."""

import logging
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.samplers import evaluation_batches
from engine.encode import Encoded, Encoder
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
            hasher.fit(features.of(train), run.dataset.source.labels[train])
            encoders[length] = partial(_encode, hasher, features)
    return encoders


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
    return call(create, options.params, supplied, "hasher")


def _encode(hasher: Any, features: RunFeatures, run: Run, indices: NDArray[np.int64]) -> Encoded:
    return Encoded(np.asarray(pack(binarize(hasher.encode(features.of(indices))))), None)


@torch.inference_mode()
def extract_features(run: Run, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Features (n, d) of the images of `indices`, from the run's networks in evaluation mode."""
    run.model.eval()
    batches = evaluation_batches(indices, run.config.training_opt.evaluation_batch_size)
    parts = []
    for images, _ in run.dataset.batches(batches, run.augmentation):
        with run.precision():
            parts.append(run.model(images).float())
    return torch.cat(parts).cpu().numpy()
