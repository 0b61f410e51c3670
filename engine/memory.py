"""The memory's place in training: rebuilt from the training images once an epoch."""

from typing import Any, cast

import torch

from engine.model import collect_outputs
from engine.run import Run
from models.memory import build_memory
from utils.distributed import send_from_main


@torch.no_grad()
def refresh_memory(run: Run) -> None:
    """Rebuild the last network's memory from the direct features of all training images.

    The features are computed in evaluation mode, without augmentation, by all processes together;
    all have the same memory. Nothing is done for a config without one.
    """
    options = run.config.memory
    if not options.centroids:
        return
    dataset = run.dataset
    features = collect_outputs(
        run.model,
        dataset,
        dataset.split.train,
        run.augmentation,
        run.precision,
        ("features",),
        run.config.training_opt.evaluation_batch_size,
    )["features"]
    membership = torch.as_tensor(dataset.source.membership()[dataset.split.train])
    images, classes = membership.nonzero(as_tuple=True)
    pairs = features[images.to(run.device)]  # an image of several classes counts in each
    classes = classes.to(run.device)
    memory = build_memory(pairs, classes, dataset.num_classes, options.dpp_samples)
    cast(Any, run.model[-1]).set_memory(send_from_main(memory))
