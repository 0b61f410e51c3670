"""Shallow hashing: features of the training images are fitted, every image is encoded."""

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


def fit(run: Run) -> dict[int, Encoder]:
    """Fit the config's hasher on the training images' features, once a code length.

    Returns:
        an encoder a code length.
    """
    train = run.dataset.split.train
    encoders: dict[int, Encoder] = {}
    with run.timed("train"):
        features = extract_features(run, train)
        for length in run.config.training_opt.code_lengths:
            hasher = _make_hasher(run, length)
            hasher.fit(features, run.dataset.source.labels[train])
            encoders[length] = partial(_encode, hasher)
    return encoders


def _make_hasher(run: Run, code_length: int) -> Any:
    options = run.config.hasher
    assert options is not None
    create = load_function(options.def_file, "create_model", "hasher")
    supplied = {"code_length": code_length, "seed": run.config.training_opt.seed}
    return call(create, options.params, supplied, "hasher")


def _encode(hasher: Any, run: Run, indices: NDArray[np.int64]) -> Encoded:
    codes = pack(binarize(hasher.encode(extract_features(run, indices))))
    return Encoded(np.asarray(codes), None)


@torch.inference_mode()
def extract_features(run: Run, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Features (n, d) of the images of `indices`, from the run's networks in evaluation mode."""
    run.model.eval()
    batches = evaluation_batches(indices, run.config.training_opt.evaluation_batch_size)
    parts = []
    for images, _ in run.dataset.batches(batches, run.augmentation):
        with run.precision():
            parts.append(run.model(images).float().cpu())
    return torch.cat(parts).numpy()
