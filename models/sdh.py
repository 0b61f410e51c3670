"""Supervised discrete hashing, SDH (Shen, Shen, Liu & Shen, CVPR 2015)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.utils import Tags

from models.shallow_hasher import (
    Features,
    HasherError,
    Real,
    ShallowHasher,
    as_real,
    check_positive,
    check_whole,
    row_blocks,
    signs,
)

MAX_SWEEPS = 10  # over the bits in one B-step; most stop earlier, when no bit changes


class SDH(ShallowHasher):
    """Learn codes B (n, q) that a linear classifier W can read and a kernel machine F can give.

    Minimises |Y - B W|² + λ|W|² + ν|B - F(X)|² over B of -1 and +1, W (q, C) and
    F(x) = φ(x) P in turn, Y (n, C) being the labels and φ(x) = [exp(-|x - a|² / 2σ²) for each
    anchor a, 1]. An unseen image's code is sgn F(x). As in the authors' program, the F-step is a
    ridge regression and φ ends with a constant.

    Args:
        code_length: q.
        num_anchors: anchors drawn from the training images; all of them if there are fewer.
        bandwidth: σ; None takes σ² = the mean squared distance of an image to an anchor (Liu et
            al., Supervised Hashing with Kernels, CVPR 2012).
        classifier_penalty: λ.
        embedding_weight: ν.
        ridge: penalty of the F-step.
        num_iterations: rounds of B-, W- and F-step at most.
        random_state: seed of the anchors and of the first codes.

    `fit` takes labels (n,), a class an image, or (n, C) of 0 and 1, and raises a HasherError
    without them. It leaves anchors_, bandwidth_, projection_ P (anchors + 1, q), classifier_ W
    (q, C) and codes_ B (n, q), int8.
    """

    method = "SDH"

    def __init__(
        self,
        code_length: int = 32,
        num_anchors: int = 1000,
        bandwidth: float | None = None,
        classifier_penalty: float = 1.0,
        embedding_weight: float = 1e-5,
        ridge: float = 1e-2,
        num_iterations: int = 5,
        random_state: int | None = 0,
    ) -> None:
        self.code_length = code_length
        self.num_anchors = num_anchors
        self.bandwidth = bandwidth
        self.classifier_penalty = classifier_penalty
        self.embedding_weight = embedding_weight
        self.ridge = ridge
        self.num_iterations = num_iterations
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags

    def _fit(self, features: Features, labels: NDArray[Any] | None) -> None:
        self._check_parameters()
        targets = multi_hot(labels, len(features))
        rng = np.random.default_rng(self.random_state)
        chosen = rng.choice(len(features), min(self.num_anchors, len(features)), replace=False)
        self.anchors_ = as_real(features[chosen])
        self.bandwidth_ = self.bandwidth or root_mean_square_distance(features, self.anchors_)
        kernel = self._training_kernel(features)
        gram = transposed_product(kernel, kernel)
        codes = signs(rng.standard_normal((len(features), self.code_length)))
        self._regress(codes, targets, kernel, gram)
        for _ in range(self.num_iterations):
            before = codes
            linear = targets @ self.classifier_.T
            for rows in row_blocks(len(kernel)):
                linear[rows] += self.embedding_weight * (kernel[rows] @ self.projection_)
            codes = discrete_codes(codes, linear, self.classifier_ @ self.classifier_.T)
            self._regress(codes, targets, kernel, gram)
            if (codes == before).all():
                break
        self.codes_ = codes.astype(np.int8)

    def _encode(self, features: Real) -> Real:
        return self._kernel(features) @ self.projection_

    def _regress(self, codes: Real, targets: Real, kernel: Features, gram: Real) -> None:
        """The W-step and the F-step: two ridge regressions, on the codes and of the codes."""
        self.classifier_ = ridge_solution(
            codes.T @ codes, codes.T @ targets, self.classifier_penalty
        )
        self.projection_ = ridge_solution(gram, transposed_product(kernel, codes), self.ridge)

    def _kernel(self, features: Real) -> Real:
        """φ of features (n, d): (n, anchors + 1)."""
        kernel = rbf_kernel(features, self.anchors_, gamma=0.5 / self.bandwidth_**2)
        return np.hstack([kernel, np.ones((len(features), 1))])

    def _training_kernel(self, features: Features) -> NDArray[np.float32]:
        """φ of the training images, in single precision: the largest array of the fit."""
        kernel = np.empty((len(features), len(self.anchors_) + 1), np.float32)
        for rows in row_blocks(len(features)):
            kernel[rows] = self._kernel(as_real(features[rows]))
        return kernel

    def _check_parameters(self) -> None:
        for name in ("num_anchors", "num_iterations"):
            check_whole(getattr(self, name), name, self.method)
        for name in ("classifier_penalty", "embedding_weight", "ridge"):
            check_positive(getattr(self, name), name, self.method)
        if self.bandwidth is not None:
            check_positive(self.bandwidth, "bandwidth", self.method)


def discrete_codes(codes: Real, linear: Real, gram: Real) -> Real:
    """The B-step: discrete cyclic coordinate descent from `codes` (n, q), bit by bit.

    Lowers |Y - B W|² + ν|B - F|² = constant + Σ_i (b_iᵀ G b_i - 2 b_iᵀ l_i), `linear` (n, q)
    being l = Y Wᵀ + ν F and `gram` (q, q) being G = W Wᵀ, until no bit changes.
    """
    codes = codes.copy()
    for _ in range(MAX_SWEEPS):
        before = codes.copy()
        for bit in range(codes.shape[1]):
            codes[:, bit] = best_bit(codes, linear, gram, bit)
        if (codes == before).all():
            break
    return codes


def best_bit(codes: Real, linear: Real, gram: Real, bit: int) -> Real:
    """The values (n,) of one bit that minimise the B-step's objective, the others being fixed."""
    others = codes @ gram[:, bit] - codes[:, bit] * gram[bit, bit]
    return signs(linear[:, bit] - others)


def ridge_solution(gram: Real, product: Real, penalty: float) -> Real:
    """P of least |X P - T|² + penalty·|P|², from `gram` = Xᵀ X and `product` = Xᵀ T."""
    return as_real(np.linalg.solve(gram + penalty * np.eye(len(gram)), product))


def transposed_product(left: Features, right: Features) -> Real:
    """leftᵀ right, accumulated in double precision over blocks of rows."""
    total = np.zeros((left.shape[1], right.shape[1]))
    for rows in row_blocks(len(left)):
        total += as_real(left[rows]).T @ as_real(right[rows])
    return total


def root_mean_square_distance(features: Features, anchors: Real) -> float:
    """Root of the mean squared distance between features (n, d) and anchors (m, d).

    Raises:
        HasherError: if it is 0.
    """
    mean = features.mean(0, dtype=np.float64)
    spread = features.var(0, dtype=np.float64).sum()
    distance = float(np.sqrt(spread + ((anchors - mean) ** 2).sum(1).mean()))
    if distance == 0:
        raise HasherError("SDH: all training images have the same features")
    return distance


def multi_hot(labels: NDArray[Any] | None, count: int) -> Real:
    """Labels (n,), or (n, C) of 0 and 1, as targets (n, C) of 0 and 1.

    Raises:
        HasherError: there are no labels, not one row an image, or multi-hot ones of other values.
    """
    if labels is None:
        raise HasherError("SDH requires y to be passed, but the target y is None; call fit(X, y)")
    if labels.ndim not in (1, 2) or len(labels) != count or labels.size == 0:
        raise HasherError(
            f"SDH: labels of shape {labels.shape} came for {count} images; "
            "give (images,) or (images, classes)"
        )
    if labels.ndim == 1:
        classes, inverse = np.unique(labels, return_inverse=True)
        return as_real(inverse[:, None] == np.arange(len(classes)))
    if not np.isin(labels, (0, 1)).all():
        raise HasherError(
            "SDH: labels (images, classes) must be 0 and 1; give class indices as (n,)"
        )
    return as_real(labels)


def create_model(
    code_length: int,
    seed: int = 0,
    num_anchors: int = 1000,
    bandwidth: float | None = None,
    classifier_penalty: float = 1.0,
    embedding_weight: float = 1e-5,
    ridge: float = 1e-2,
    num_iterations: int = 5,
) -> SDH:
    """Build an unfitted hasher whose anchors and first codes are drawn from `seed`."""
    return SDH(
        code_length,
        num_anchors,
        bandwidth,
        classifier_penalty,
        embedding_weight,
        ridge,
        num_iterations,
        seed,
    )
