"""PCA hashing: the signs of the first principal components, the simplest shallow hasher."""

from typing import Any

from numpy.typing import NDArray

from models.shallow_hasher import Features, Real, ShallowHasher, principal_components


class PCAHashing(ShallowHasher):
    """Project centred features on their first `code_length` principal components, take signs.

    `fit` raises a HasherError if there are fewer images or dimensions than bits.
    """

    method = "PCA hashing"

    def __init__(self, code_length: int = 32) -> None:
        self.code_length = code_length

    def _fit(self, features: Features, labels: NDArray[Any] | None) -> None:
        self.pca_ = principal_components(features, self.code_length, self.method)

    def _encode(self, features: Real) -> Real:
        return self.pca_.transform(features)


def create_model(code_length: int) -> PCAHashing:
    """Build an unfitted hasher."""
    return PCAHashing(code_length)
