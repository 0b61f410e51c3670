"""The memory's place in training: rebuilt from the training images once an epoch."""

from typing import Any, cast

import torch

from engine.model import collect_outputs
from engine.run import Run
from models.memory import choose_samples, memory_parts
from utils.distributed import send_from_main


@torch.no_grad()
def refresh_memory(run: Run) -> None:
    """Rebuild the last network's memory from the direct features of all training images.

    Attention by cosine has keys beside it, made of the same images' inputs to the head, the number
    of training images of each row's class, and whitening, if the head asks for it. All are computed
    in evaluation mode, without augmentation, by all processes together; all have the same memory.
    Nothing is done for a config without one.
    """
    options = run.config.memory
    if not options.centroids:
        return
    dataset = run.dataset
    outputs = collect_outputs(
        run.model,
        dataset,
        dataset.split.train,
        run.augmentation,
        run.precision,
        ("features", "inputs"),
        run.config.training_opt.evaluation_batch_size,
    )
    membership = torch.as_tensor(dataset.source.membership()[dataset.split.train])
    images, classes = membership.nonzero(as_tuple=True)
    rows = images.to(run.device)  # an image of several classes counts in each
    classes = classes.to(run.device)
    features = outputs["features"][rows]
    inputs = outputs["inputs"][rows] if "inputs" in outputs else None
    chosen = choose_samples(features, classes, dataset.num_classes, options.dpp_samples)
    head = cast(Any, run.model[-1])
    shrinkage = getattr(head, "shrinkage", None)
    parts = memory_parts(features, inputs, classes, chosen, shrinkage)
    head.set_memory(**{name: send_from_main(part) for name, part in parts.items()})
