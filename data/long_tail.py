"""Class sizes of a long-tailed training set, after Zipf's law.

`python -m data.long_tail --help` makes, prints, plots and writes a split.
"""

import math

import numpy as np

from utils.errors import UserError

# (classes, largest class) -> {imbalance factor: exponent}: Table 1 of LTHNet (Chen et al.,
# SIGIR 2021), for CIFAR-100 and ImageNet100.
_PUBLISHED_MU: dict[tuple[int, int], dict[float, float]] = {
    (100, 500): {50: 0.83, 100: 0.99},
    (100, 1300): {50: 0.845, 100: 0.99},
}


def published_mu(num_classes: int, n_max: int, imbalance_factor: float) -> float:
    """Return Zipf's exponent μ: the published one where there is one, else ln(IF) / ln(C).

    With ln(IF) / ln(C) the smallest class has exactly n_max / IF images, rounded down.

    Raises:
        UserError: the imbalance factor is below 1, or above 1 with a single class.
    """
    if not imbalance_factor >= 1:
        raise UserError(
            f"imbalance_factor is {imbalance_factor}; expected at least 1 (1 means balanced)"
        )
    if imbalance_factor == 1:
        return 0.0
    if num_classes < 2:
        raise UserError(f"imbalance_factor {imbalance_factor} needs at least 2 classes")
    published = _PUBLISHED_MU.get((num_classes, n_max), {})
    return published.get(imbalance_factor, math.log(imbalance_factor) / math.log(num_classes))


def class_sizes(
    num_classes: int, n_max: int, imbalance_factor: float, mu: float | None = None
) -> np.ndarray:
    """Return (C,) int64: floor(n_max · r^-μ) training images for the class of rank r = 1..C.

    mu: the exponent; by default `published_mu`.

    Raises:
        UserError: the imbalance factor is below 1, the exponent negative or not finite, n_max
            below 1, or a class would get no image.
    """
    if n_max < 1:
        raise UserError(f"n_max is {n_max}; expected at least 1 image for the largest class")
    exponent = published_mu(num_classes, n_max, imbalance_factor) if mu is None else mu
    if not 0 <= exponent < math.inf:
        raise UserError(f"mu is {exponent}; expected a finite number, 0 or more")
    ranks = np.arange(1, num_classes + 1, dtype=np.float64)
    # The small term keeps whole numbers whole: 500 · 100^-μ may come out as 49.999...
    sizes = np.floor(n_max * ranks**-exponent + 1e-9).astype(np.int64)
    if sizes[-1] < 1:
        raise UserError(
            f"imbalance_factor {imbalance_factor} with n_max {n_max} leaves the smallest class"
            f" without images; use an imbalance_factor of at most {n_max}"
        )
    return sizes


if __name__ == "__main__":
    from data.long_tail_command import main

    raise SystemExit(main())
