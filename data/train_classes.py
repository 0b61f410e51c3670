"""Training on some classes only, while queries and database keep them all."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from data.source import Source
from data.split import Split
from utils.errors import UserError


def keep_train_classes(source: Source, split: Split, train_classes: int | Sequence[str]) -> Split:
    """Return the split with training and validation images of some classes only.

    For classes that arrive later (as in DIHN, Wu et al., CVPR 2019: 7 classes of CIFAR-10, then
    the other 3). The other roles stay as they are, and the other classes count 0 images, so that
    a run on some classes and one on all share their queries and database.

    train_classes: the first so many in the source's order, or their names.

    Raises:
        UserError: a number out of range, an unknown name, no training image left, or a
            multi-label source.
    """
    if source.multi_label:
        raise UserError(
            f"data.train_classes with the multi-label dataset {source.name} is not possible"
        )
    kept = _kept_classes(source, train_classes)
    counts = np.where(kept, split.class_counts, 0)
    if np.array_equal(counts, split.class_counts):
        return split
    train, validation = (
        indices[kept[source.labels[indices]]] for indices in (split.train, split.validation)
    )
    if not len(train):
        raise UserError(
            f"data.train_classes {train_classes}: no training image of {source.name} is of them"
        )
    return replace(
        split,
        train=train,
        validation=validation,
        class_counts=counts,
        protocol=f"{split.protocol}; trained on {kept.sum()} of {source.num_classes} classes",
    )


def _kept_classes(source: Source, train_classes: int | Sequence[str]) -> np.ndarray:
    """Return (C,) bool: which classes are trained on."""
    if isinstance(train_classes, int):
        if not 1 <= train_classes <= source.num_classes:
            raise UserError(
                f"data.train_classes is {train_classes}; expected 1 to {source.num_classes},"
                f" the classes of {source.name}, or a list of their names"
            )
        return np.arange(source.num_classes) < train_classes
    for name in train_classes:
        if name not in source.class_names:
            raise UserError(f"data.train_classes: {name!r} is not a class of {source.name}")
    return np.isin(source.class_names, list(train_classes))
