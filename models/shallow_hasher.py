"""What the shallow hashers share: checks at the boundary, coding by blocks of rows, PCA."""

import math
import numbers
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted, validate_data

from utils.errors import UserError

BLOCK_ROWS = 4096  # images coded at a time: bounds the working memory, not the result

Features = NDArray[Any]
Real = NDArray[np.float64]


class HasherError(UserError, ValueError):
    """A user's mistake, and a ValueError, which scikit-learn's tools expect of an estimator."""


class ShallowHasher(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A scikit-learn transformer from features to real values whose sign is the code.

    It passes scikit-learn's estimator checks: clones, pipelines, searches and the like take it.
    A subclass has `code_length` among its parameters, learns in `_fit` and codes in `_encode`;
    `method` is what messages call it.
    """

    method: str
    code_length: int

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Learn from features `X` (n, d); labels `y` are read by supervised methods only.

        Raises:
            HasherError: the features are not finite numbers (n, d) with n at least 2, or a
                parameter or the labels do not fit them.
        """
        check_whole(self.code_length, "code_length", self.method)
        checked = check_features(X, self.method)
        if len(checked) < 2:
            raise HasherError(f"{self.method}: 1 sample (training image) came; give at least 2")
        validate_data(self, X, skip_check_array=True)  # remembers their names and number
        self._fit(checked, None if y is None else np.asarray(y))
        return self

    def encode(self, X: ArrayLike) -> Real:
        """Real-valued codes (n, code_length) of features `X` (n, d); their sign is the code.

        Raises:
            HasherError: the features are not finite numbers, or not as wide as those fitted.
        """
        check_is_fitted(self)
        checked = check_features(X, self.method)
        if checked.shape[1] != self.n_features_in_:
            raise HasherError(
                f"X has {checked.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input; use the same network for both"
            )
        validate_data(self, X, skip_check_array=True, reset=False)  # their names, where they have
        blocks = [self._encode(as_real(checked[rows])) for rows in row_blocks(len(checked))]
        return np.concatenate(blocks)

    def transform(self, X: ArrayLike) -> Real:
        """`encode`, by scikit-learn's name."""
        return self.encode(X)

    @property
    def _n_features_out(self) -> int:
        """How many output names `get_feature_names_out` makes."""
        return self.code_length

    @abstractmethod
    def _fit(self, features: Features, labels: NDArray[Any] | None) -> None:
        """Learn from checked features (n, d)."""

    @abstractmethod
    def _encode(self, features: Real) -> Real:
        """Codes (rows, code_length) of one block of features (rows, d)."""


def principal_components(features: Features, count: int, method: str) -> PCA:
    """The first `count` principal components of `features` (n, d), in double precision.

    Raises:
        HasherError: if there are fewer images or dimensions than `count`.
    """
    images, dims = features.shape
    if count > min(images, dims):
        raise HasherError(
            f"{method}: {count} bits need as many images and dimensions, the training features "
            f"are {images} x {dims} (n_features = {dims}); lower training_opt.code_length"
        )
    solver = "full" if images < dims else "covariance_eigh"  # the smaller decomposition
    return PCA(count, svd_solver=solver).fit(as_real(features))


def check_features(features: ArrayLike, method: str) -> Features:
    """`features` as an array of finite numbers (n, d), none empty, or a HasherError."""
    if issparse(features):
        raise HasherError(f"{method}: sparse features came; give a dense array, X.toarray()")
    array = np.asarray(features)
    if array.dtype.kind == "O":
        array = _numbers(array, method)
    if array.dtype.kind == "c":
        raise HasherError(f"{method}: Complex data not supported; give real numbers")
    if array.dtype.kind not in "biuf":
        raise HasherError(f"{method}: features of type {array.dtype} came; give real numbers")
    if array.ndim != 2 or array.size == 0:
        few = f"; found array with {_empty(array)}" if array.ndim == 2 else ""
        raise HasherError(
            f"{method}: features of shape {array.shape} came, expected (images, dimensions){few}; "
            "Reshape your data to one row an image"
        )
    wrong = sum(int((~np.isfinite(array[rows])).sum()) for rows in row_blocks(len(array)))
    if wrong:
        raise HasherError(
            f"{method}: {wrong} of {array.size} features are NaN or infinite; "
            "check the network that made them"
        )
    return array


def _numbers(array: NDArray[Any], method: str) -> NDArray[Any]:
    """Python objects as numbers, where they are."""
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise HasherError(
            f"{method}: features are objects ({reason}); give real numbers"
        ) from error


def _empty(array: NDArray[Any]) -> str:
    """Which side of a table of no numbers is missing, in scikit-learn's words."""
    what = "sample(s)" if len(array) == 0 else "feature(s)"
    return f"0 {what} (shape={array.shape}) while a minimum of 1 is required"


def check_whole(value: object, name: str, method: str) -> None:
    """Raise a HasherError unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise HasherError(f"{method}: {name} is {value!r}; give a whole number of at least 1")


def check_positive(value: object, name: str, method: str) -> None:
    """Raise a HasherError unless `value` is a finite number above 0."""
    number = float(value) if isinstance(value, numbers.Real) else math.nan
    if isinstance(value, bool) or not 0 < number < math.inf:
        raise HasherError(f"{method}: {name} is {value!r}; give a number above 0")


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
