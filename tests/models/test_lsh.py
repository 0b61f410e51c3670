import numpy as np
import pytest

from models import lsh
from retrieval.codes import binarize


def test_codes_equal_a_plain_loop_over_the_directions():
    train = np.random.default_rng(0).normal(2, 3, (30, 5))
    hasher = lsh.create_model(7, seed=3).fit(train)
    mean = [sum(column) / 30 for column in train.T]
    for image, code in zip(train, hasher.encode(train), strict=True):
        for direction, value in zip(hasher.directions_, code, strict=True):
            centred = [x - m for x, m in zip(image, mean, strict=True)]
            plain = sum(w * x for w, x in zip(direction, centred, strict=True))
            assert value == pytest.approx(plain, abs=1e-10)


@pytest.mark.parametrize("degrees", [5, 30, 90, 150])
def test_the_share_of_differing_bits_is_the_angle_over_pi(degrees):
    bits, angle = 40_000, np.deg2rad(degrees)
    offset = np.array([10.0, -20, 30])
    pair = np.array([[1, 0, 0], [3 * np.cos(angle), 3 * np.sin(angle), 0]])
    train = offset + np.concatenate([pair, -pair])  # centred on the offset
    first, second = binarize(lsh.create_model(bits).fit(train).encode(offset + pair))
    expected = angle / np.pi
    assert (first != second).mean() == pytest.approx(
        expected, abs=4 * np.sqrt(expected * (1 - expected) / bits)
    )


def test_directions_are_standard_normal():
    directions = lsh.create_model(200).fit(np.eye(100)).directions_
    assert directions.shape == (200, 100)
    assert directions.mean() == pytest.approx(0, abs=4 / np.sqrt(20_000))
    assert directions.std() == pytest.approx(1, abs=4 / np.sqrt(40_000))


def test_shifted_and_scaled_features_have_the_same_codes():
    train = np.random.default_rng(0).normal(0, 1, (50, 8))
    codes = binarize(lsh.create_model(64).fit(train).encode(train))
    moved = 5 * train + 100
    np.testing.assert_array_equal(binarize(lsh.create_model(64).fit(moved).encode(moved)), codes)
