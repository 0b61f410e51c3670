import math

import numpy as np
import pytest

from data.long_tail import class_sizes, published_mu
from utils.errors import UserError


@pytest.mark.parametrize(
    ("n_max", "imbalance_factor", "total", "smallest"),
    [
        (500, 1, 50_000, 500),
        (500, 50, 3_732, 10),
        (500, 100, 2_598, 5),
        (100, 1, 10_000, 100),
        (1300, 50, 9_437, 26),
        (1300, 100, 6_834, 13),
    ],
)
def test_sizes_sum_to_the_published_training_sets(n_max, imbalance_factor, total, smallest):
    sizes = class_sizes(100, n_max, imbalance_factor)
    assert sizes.sum() == total
    assert sizes[0] == n_max and sizes[-1] == smallest
    assert (np.diff(sizes) <= 0).all()


@pytest.mark.parametrize("imbalance_factor", [1, 10, 20, 25, 250, 500])
def test_unpublished_factors_are_met_exactly(imbalance_factor):
    sizes = class_sizes(100, 500, imbalance_factor)
    assert sizes[0] == 500 and sizes[-1] == 500 // imbalance_factor


def test_whole_powers_are_not_lost_to_rounding():
    for num_classes in (2, 3, 7, 10, 1000):
        for smallest in (1, 3, 7):
            assert class_sizes(num_classes, 90 * smallest, 90)[-1] == smallest


def test_given_mu_overrides():
    assert class_sizes(4, 12, 50, mu=1.0).tolist() == [12, 6, 4, 3]


def test_published_mu_else_the_logarithm():
    assert published_mu(100, 500, 50) == 0.83
    assert published_mu(100, 1300, 50) == 0.845
    assert published_mu(100, 600, 50) == math.log(50) / math.log(100)
    assert published_mu(10, 500, 1) == 0 == published_mu(1, 500, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((10, 100, 0.5), "imbalance_factor is 0.5"),
        ((10, 100, float("nan")), "imbalance_factor is nan"),
        ((10, 0, 10), "n_max is 0"),
        ((10, 50, 100), "smallest class without images; use .* at most 50"),
        ((1, 50, 10), "at least 2 classes"),
        ((10, 50, 10, -0.1), "mu is -0.1"),
        ((10, 50, 10, float("nan")), "mu is nan"),
        ((10, 50, 10, float("inf")), "mu is inf"),
    ],
)
def test_impossible_sizes_are_refused(arguments, said):
    with pytest.raises(UserError, match=said):
        class_sizes(*arguments)
