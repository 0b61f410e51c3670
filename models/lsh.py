"""Locality-sensitive hashing: the signs of random projections (Charikar, STOC 2002)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.shallow_hasher import Features, Real, ShallowHasher


class LSH(ShallowHasher):
    """Project centred features on random Gaussian directions, take signs.

    Two images whose centred features are at angle θ differ in each bit with probability θ / π.
    """

    method = "LSH"

    def __init__(self, code_length: int = 32, random_state: int | None = 0) -> None:
        self.code_length = code_length
        self.random_state = random_state

    def _fit(self, features: Features, labels: NDArray[Any] | None) -> None:
        rng = np.random.default_rng(self.random_state)
        self.mean_ = features.mean(0, dtype=np.float64)
        self.directions_ = rng.standard_normal((self.code_length, features.shape[1]))

    def _encode(self, features: Real) -> Real:
        return (features - self.mean_) @ self.directions_.T


def create_model(code_length: int, seed: int = 0) -> LSH:
    """Build an unfitted hasher whose directions are drawn from `seed`."""
    return LSH(code_length, seed)
