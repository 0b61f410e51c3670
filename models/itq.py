"""Iterative quantisation, ITQ (Gong & Lazebnik, CVPR 2011): PCA, then the best rotation."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.shallow_hasher import (
    Features,
    Real,
    ShallowHasher,
    as_real,
    check_whole,
    principal_components,
    signs,
)


class ITQ(ShallowHasher):
    """Rotate the principal components V (n, q) so that they lie near their signs B.

    From a random rotation R, `num_iterations` times: B = sgn(V R), then the R that minimises the
    quantisation loss |B - V R|² (orthogonal Procrustes); neither step can raise it.

    `fit` raises a HasherError if there are fewer images or dimensions than bits. It leaves the
    rotation_ (q, q) and quantization_losses_ (num_iterations,), the loss after each iteration.
    """

    method = "ITQ"

    def __init__(
        self, code_length: int = 32, num_iterations: int = 50, random_state: int | None = 0
    ) -> None:
        self.code_length = code_length
        self.num_iterations = num_iterations
        self.random_state = random_state

    def _fit(self, features: Features, labels: NDArray[Any] | None) -> None:
        check_whole(self.num_iterations, "num_iterations", self.method)
        self.pca_ = principal_components(features, self.code_length, self.method)
        components = self.pca_.transform(as_real(features))
        rng = np.random.default_rng(self.random_state)
        rotation, _ = np.linalg.qr(rng.standard_normal((self.code_length, self.code_length)))
        squares = components.size + (components**2).sum()  # |B|² + |V R|²
        losses = []
        for _ in range(self.num_iterations):
            codes = signs(components @ rotation)
            left, singular_values, right = np.linalg.svd(components.T @ codes)
            rotation = left @ right
            losses.append(squares - 2 * singular_values.sum())
        self.rotation_ = rotation
        self.quantization_losses_ = np.array(losses)

    def _encode(self, features: Real) -> Real:
        return self.pca_.transform(features) @ self.rotation_


def create_model(code_length: int, seed: int = 0, num_iterations: int = 50) -> ITQ:
    """Build an unfitted hasher whose first rotation is drawn from `seed`."""
    return ITQ(code_length, num_iterations, seed)
