"""PCA hashing: the signs of the first principal components, the simplest shallow hasher."""

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA

from utils.errors import UserError


class PCAHashing(BaseEstimator):
    """Project centred features on their first `code_length` principal components, take signs."""

    def __init__(self, code_length: int = 32) -> None:
        self.code_length = code_length

    def fit(self, features: NDArray[np.floating], labels: object = None) -> "PCAHashing":
        """Learn the components from `features` (n, d); `labels` are not used.

        Raises:
            UserError: if there are fewer images or dimensions than bits.
        """
        if self.code_length > min(features.shape):
            raise UserError(
                f"PCA hashing: {self.code_length} bits need as many images and dimensions, "
                f"the training features are {features.shape[0]} x {features.shape[1]}; "
                "lower training_opt.code_length"
            )
        self.pca_ = PCA(self.code_length, svd_solver="full").fit(features)
        return self

    def encode(self, features: NDArray[np.floating]) -> NDArray[np.floating]:
        """Real-valued codes (n, code_length) of features (n, d); their sign is the code."""
        return self.pca_.transform(features)


def create_model(code_length: int) -> PCAHashing:
    """Build an unfitted hasher."""
    return PCAHashing(code_length)
