import math

import numpy as np
import pytest

from models import spectral_hashing
from models.spectral_hashing import smoothest_modes
from retrieval.codes import binarize


def features(count=50, dim=6, seed=0):
    return np.random.default_rng(seed).normal(3, 2, (count, dim)) * np.arange(1, dim + 1)


def plain_spectral_hashing(train, query, bits):
    """Weiss, Torralba & Fergus's program, in loops: one eigenfunction, one image at a time."""
    count = min(bits, *train.shape)
    _, vectors = np.linalg.eigh(np.atleast_2d(np.cov(train.T)))
    axes = vectors[:, ::-1][:, :count]
    lower, upper = (train @ axes).min(0), (train @ axes).max(0)
    longest = max(upper - lower)
    candidates = [(0.0, 0, 0)]  # the trivial, constant one
    for dim in range(count):
        side = upper[dim] - lower[dim]
        for mode in range(2, math.ceil((bits + 1) * side / longest) + 1):
            candidates.append((((mode - 1) * math.pi / side) ** 2, dim, mode - 1))
    candidates.sort(key=lambda each: each[0])
    codes = np.empty((len(query), bits))
    for bit, (_, chosen, mode) in enumerate(candidates[1 : bits + 1]):
        for row, image in enumerate(query @ axes - lower):
            value = 1.0
            for dim in range(count):
                omega = mode * math.pi / (upper[dim] - lower[dim]) if dim == chosen else 0.0
                value *= math.sin(math.pi / 2 + omega * image[dim])
            codes[row, bit] = value
    return codes


def same_up_to_each_bits_sign(codes, expected):
    """A component's direction is arbitrary, and reversing it turns its odd modes' signs."""
    turned = np.sign((codes * expected).sum(0))
    np.testing.assert_allclose(codes, expected * turned, atol=1e-7)


@pytest.mark.parametrize(("count", "dim"), [(50, 6), (50, 1), (8, 20)])
@pytest.mark.parametrize("bits", [1, 4, 6, 20])
def test_codes_equal_the_published_program_in_plain_loops(bits, count, dim):
    train, query = features(count, dim), features(30, dim, seed=1)
    codes = spectral_hashing.create_model(bits).fit(train).encode(query)
    same_up_to_each_bits_sign(codes, plain_spectral_hashing(train, query, bits))


@pytest.mark.parametrize("seed", range(20))
def test_the_modes_are_the_smallest_of_all(seed):
    rng = np.random.default_rng(seed)
    ranges, bits = rng.exponential(1, rng.integers(1, 9)), int(rng.integers(1, 40))
    every = sorted((m / side, d, m) for d, side in enumerate(ranges) for m in range(1, bits + 3))
    dims, modes = smoothest_modes(ranges, bits)
    assert list(zip(dims, modes, strict=True)) == [(d, m) for _, d, m in every[:bits]]


def test_ties_keep_the_order_of_the_dimensions_and_a_flat_one_has_no_mode():
    dims, modes = smoothest_modes(np.array([1.0, 0.0, 2.0, 1.0]), 6)
    assert dims.tolist() == [2, 0, 2, 3, 2, 0]
    assert modes.tolist() == [1, 1, 2, 1, 3, 2]


def test_the_bits_of_a_uniform_box_are_the_stripes_of_its_eigenfunctions():
    grid = np.stack(np.meshgrid(np.linspace(0, 4, 81), np.linspace(0, 1.3, 27)), -1)
    box = grid.reshape(-1, 2)
    hasher = spectral_hashing.create_model(5).fit(box)
    assert hasher.dimensions_.tolist() == [0, 0, 0, 1, 0]  # 1/4, 2/4, 3/4, 1/1.3, 4/4
    assert hasher.modes_.tolist() == [1, 2, 3, 1, 4]
    query = np.random.default_rng(0).uniform(0, [4, 1.3], (500, 2))
    codes = binarize(hasher.encode(query))
    for bit, (dim, mode) in enumerate(zip(hasher.dimensions_, hasher.modes_, strict=True)):
        # cos(mode·π·t) turns at t = (2j + 1) / (2·mode)
        t = query[:, dim] / (4, 1.3)[dim]
        stripe = 1 - 2 * (np.floor(mode * t + 0.5) % 2)
        assert abs((codes[:, bit] * stripe).sum()) == len(query)


def test_the_functions_are_eigenfunctions_with_flat_ends():
    line = np.linspace(-2, 5, 4001)[:, None]
    values = spectral_hashing.create_model(3).fit(line).encode(line)
    step = 7 / 4000
    for mode, value in enumerate(values.T, start=1):
        second = np.diff(value, 2) / step**2
        np.testing.assert_allclose(second, -((mode * np.pi / 7) ** 2) * value[1:-1], atol=1e-4)
        assert abs(value[1] - value[0]) / step < 0.01
        assert abs(value[-1] - value[-2]) / step < 0.01
        assert value.mean() == pytest.approx(0, abs=1e-3)  # about half the bits are +1


def test_turning_moving_and_scaling_the_features_keeps_the_codes():
    train = features()
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))
    codes = spectral_hashing.create_model(12).fit(train).encode(train)
    moved = 7 * train @ turn + 50
    same_up_to_each_bits_sign(spectral_hashing.create_model(12).fit(moved).encode(moved), codes)


def test_repeated_features_take_no_bits():
    train = features(dim=2)
    doubled = np.hstack([train, train])  # rank 2 in 4 dimensions
    hasher = spectral_hashing.create_model(10).fit(doubled)
    assert set(hasher.dimensions_) == {0, 1}
    expected = spectral_hashing.create_model(10).fit(train).encode(train)
    same_up_to_each_bits_sign(hasher.encode(doubled), expected)
