"""Made-up images with a visible class, for --smoke: no data, no network."""

from pathlib import Path

import numpy as np

from data.source import Source
from utils.errors import UserError


def create_source(
    data_root: str | Path | None = None,
    num_classes: int = 10,
    image_size: int = 32,
    images_per_class: int = 12,
    multi_label: bool = False,
    seed: int = 0,
) -> Source:
    """Images of one colour a class plus noise, uint8, in the subset 'all'.

    A multi-label image also carries the label of the next class. `data_root` is not used.

    Raises:
        UserError: for fewer than 2 classes or images a class.
    """
    if num_classes < 2 or images_per_class < 2:
        raise UserError(
            f"synthetic images: {num_classes} classes of {images_per_class}, expected 2 or more"
        )
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(num_classes), images_per_class)
    colours = rng.integers(40, 216, (num_classes, 1, 1, 3))
    noise = rng.integers(-40, 40, (len(classes), image_size, image_size, 3))
    labels = classes
    if multi_label:
        following = (classes + 1) % num_classes
        columns = np.arange(num_classes)
        labels = (classes[:, None] == columns) | (following[:, None] == columns)
        labels = labels.astype(np.uint8)
    return Source(
        name="synthetic",
        class_names=[f"class_{c}" for c in range(num_classes)],
        image_names=[f"synthetic/{i:05d}" for i in range(len(classes))],
        labels=labels,
        subsets={"all": np.arange(len(classes))},
        arrays=(colours[classes] + noise).astype(np.uint8),
    )
