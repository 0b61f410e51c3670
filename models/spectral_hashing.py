"""Spectral hashing (Weiss, Torralba & Fergus, NIPS 2008)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.shallow_hasher import (
    Features,
    HasherError,
    Real,
    ShallowHasher,
    as_real,
    principal_components,
)


class SpectralHashing(ShallowHasher):
    """Signs of the smoothest eigenfunctions of a box around the principal components.

    On an interval [a, b] the one-dimensional Laplacian has the eigenfunctions
    sin(π/2 + mode·π/(b - a)·(y - a)), the smoother the smaller mode·π/(b - a) is. Each bit is one
    of them along one component; a long component takes several bits, a short one none, so that
    there may be more bits than dimensions.

    `fit` raises a HasherError if all images have the same features. It leaves, for each bit, the
    component it reads in dimensions_ and its mode in modes_, both (code_length,).
    """

    method = "spectral hashing"

    def __init__(self, code_length: int = 32) -> None:
        self.code_length = code_length

    def _fit(self, features: Features, labels: NDArray[Any] | None) -> None:
        if (features == features[0]).all():
            raise HasherError(f"{self.method}: all training images have the same features")
        self.pca_ = principal_components(
            features, min(self.code_length, *features.shape), self.method
        )
        components = self.pca_.transform(as_real(features))
        self.lower_ = components.min(0)
        self.upper_ = components.max(0)
        self.dimensions_, self.modes_ = smoothest_modes(self.upper_ - self.lower_, self.code_length)

    def _encode(self, features: Real) -> Real:
        offsets = self.pca_.transform(features) - self.lower_
        frequencies = self.modes_ * np.pi / (self.upper_ - self.lower_)[self.dimensions_]
        return np.sin(np.pi / 2 + offsets[:, self.dimensions_] * frequencies)


def smoothest_modes(ranges: Real, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Dimension and mode (1, 2, ...) of the `count` smallest mode / range, both (count,).

    `ranges` (d,) are the sides of the box, one at least above 0. As in the authors' program, a
    dimension offers the modes below (count + 1)·range / largest range: the longest alone has
    `count` of them, so no other can be among the smallest. Ties keep the dimensions' order.
    """
    offered = np.ceil((count + 1) * (ranges / ranges.max())).astype(np.int64) - 1
    offered = np.maximum(offered, 0)  # a side of length 0 has none
    dimensions = np.repeat(np.arange(len(ranges)), offered)
    modes = np.concatenate([np.arange(1, each + 1) for each in offered])
    smallest = np.argsort(modes / ranges[dimensions], kind="stable")[:count]
    return dimensions[smallest], modes[smallest]


def create_model(code_length: int) -> SpectralHashing:
    """Build an unfitted hasher."""
    return SpectralHashing(code_length)
