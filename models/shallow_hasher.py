"""What the shallow hashers share: checks at the boundary, coding by blocks of rows, PCA."""

import math
import numbers
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted

from utils.errors import UserError

BLOCK_ROWS = 4096  # images coded at a time: bounds the working memory, not the result

Features = NDArray[Any]
Real = NDArray[np.float64]


class ShallowHasher(TransformerMixin, BaseEstimator):
    """A scikit-learn transformer from features to real values whose sign is the code.

    A subclass has `code_length` among its parameters, learns in `_fit` and codes in `_encode`;
    `method` is what messages call it.
    """

    method: str
    code_length: int

    def fit(self, features: ArrayLike, labels: ArrayLike | None = None) -> Self:
        """Learn from `features` (n, d); `labels` are read by supervised methods only.

        Raises:
            UserError: the features are not finite numbers (n, d) with n at least 2, or a
                parameter or the labels do not fit them.
        """
        checked = check_features(features, self.method)
        if len(checked) < 2:
            raise UserError(f"{self.method}: {len(checked)} training images; give at least 2")
        check_whole(self.code_length, "code_length", self.method)
        self._fit(checked, None if labels is None else np.asarray(labels))
        self.n_features_in_ = checked.shape[1]
        return self

    def encode(self, features: ArrayLike) -> Real:
        """Real-valued codes (n, code_length) of features (n, d); their sign is the code.

        Raises:
            UserError: the features are not finite numbers, or not as wide as those fitted.
        """
        check_is_fitted(self)
        checked = check_features(features, self.method)
        if checked.shape[1] != self.n_features_in_:
            raise UserError(
                f"{self.method}: features of {checked.shape[1]} dimensions came, it was fitted "
                f"on {self.n_features_in_}; use the same network for both"
            )
        blocks = [self._encode(as_real(checked[rows])) for rows in row_blocks(len(checked))]
        return np.concatenate(blocks)

    def transform(self, features: ArrayLike) -> Real:
        """`encode`, by scikit-learn's name."""
        return self.encode(features)

    @abstractmethod
    def _fit(self, features: Features, labels: NDArray[Any] | None) -> None:
        """Learn from checked features (n, d)."""

    @abstractmethod
    def _encode(self, features: Real) -> Real:
        """Codes (rows, code_length) of one block of features (rows, d)."""


def principal_components(features: Features, count: int, method: str) -> PCA:
    """The first `count` principal components of `features` (n, d), in double precision.

    Raises:
        UserError: if there are fewer images or dimensions than `count`.
    """
    images, dims = features.shape
    if count > min(images, dims):
        raise UserError(
            f"{method}: {count} bits need as many images and dimensions, the training features "
            f"are {images} x {dims}; lower training_opt.code_length"
        )
    solver = "full" if images < dims else "covariance_eigh"  # the smaller decomposition
    return PCA(count, svd_solver=solver).fit(as_real(features))


def check_features(features: ArrayLike, method: str) -> Features:
    """`features` as an array of finite numbers (n, d), none empty, or a UserError."""
    array = np.asarray(features)
    if array.dtype.kind not in "biuf":
        raise UserError(f"{method}: features of type {array.dtype} came; give real numbers")
    if array.ndim != 2 or array.size == 0:
        raise UserError(
            f"{method}: features of shape {array.shape} came, expected (images, dimensions); "
            "give one row an image"
        )
    wrong = sum(int((~np.isfinite(array[rows])).sum()) for rows in row_blocks(len(array)))
    if wrong:
        raise UserError(
            f"{method}: {wrong} of {array.size} features are NaN or infinite; "
            "check the network that made them"
        )
    return array


def check_whole(value: object, name: str, method: str) -> None:
    """Raise a UserError unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise UserError(f"{method}: {name} is {value!r}; give a whole number of at least 1")


def check_positive(value: object, name: str, method: str) -> None:
    """Raise a UserError unless `value` is a finite number above 0."""
    number = float(value) if isinstance(value, numbers.Real) else math.nan
    if isinstance(value, bool) or not 0 < number < math.inf:
        raise UserError(f"{method}: {name} is {value!r}; give a number above 0")


def row_blocks(count: int) -> Iterator[slice]:
    """Slices of at most BLOCK_ROWS that cover `count` rows."""
    for start in range(0, count, BLOCK_ROWS):
        yield slice(start, start + BLOCK_ROWS)


def as_real(values: Features) -> Real:
    """`values` in double precision."""
    return values.astype(np.float64, copy=False)


def signs(values: Real) -> Real:
    """Sign of each value as -1 or +1, with sgn(0) = +1."""
    return np.where(values >= 0, 1.0, -1.0)
