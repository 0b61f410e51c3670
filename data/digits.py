"""The 8×8 digits that scikit-learn carries: a dataset without a download."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from data.source import Source


def create_source(data_root: str | Path | None = None) -> Source:
    """Return the 1,797 digits: 10 classes, one subset 'all', names 'digits/0000' and on.

    The grey values 0..16 are scaled to 0..255 and repeated to three channels. `data_root` is
    not needed.
    """
    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    count = len(grey)
    return Source(
        name="Digits",
        class_names=[str(digit) for digit in range(10)],
        image_names=[f"digits/{index:04d}" for index in range(count)],
        labels=bunch.target.astype(np.int64),
        subsets={"all": np.arange(count)},
        arrays=np.repeat(grey[..., None], 3, axis=-1),
    )
