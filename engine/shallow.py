"""Shallow hashing: features of the training images are fitted, every image is encoded."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.samplers import evaluation_batches
from engine.encode import Encoded
from engine.run import Run
from retrieval.codes import binarize, pack
from utils.def_file import call, load_function


def fit(run: Run) -> Callable[[Run, NDArray[np.int64]], Encoded]:
    """Fit the config's hasher on the training images' features; returns the encoder."""
    config, dataset = run.config, run.dataset
    assert config.hasher is not None
    create = load_function(config.hasher.def_file, "create_model", "hasher")
    supplied = {"code_length": config.training_opt.code_length, "seed": config.training_opt.seed}
    hasher: Any = call(create, config.hasher.params, supplied, "hasher")
    train = dataset.split.train
    with run.timed("train"):
        hasher.fit(extract_features(run, train), dataset.source.labels[train])

    def encoder(run: Run, indices: NDArray[np.int64]) -> Encoded:
        codes = pack(binarize(hasher.encode(extract_features(run, indices))))
        return Encoded(np.asarray(codes), None)

    return encoder


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
