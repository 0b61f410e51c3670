import itertools

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes

from models import itq
from retrieval.codes import binarize
from utils.errors import UserError


def features(count=300, dim=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(3, 1, (count, dim)) * np.arange(1, dim + 1) @ rng.normal(size=(dim, dim))


def components(train, bits):
    _, _, axes = np.linalg.svd(train - train.mean(0), full_matrices=False)
    return (train - train.mean(0)) @ axes[:bits].T


def loss(projected, rotation, codes):
    return ((codes - projected @ rotation) ** 2).sum()


@pytest.mark.parametrize("bits", [2, 8, 12])
def test_the_quantization_loss_never_rises(bits):
    losses = itq.create_model(bits).fit(features()).quantization_losses_
    assert losses.shape == (50,)
    assert (np.diff(losses) <= 1e-9 * losses[0]).all()
    assert losses[-1] < losses[0]


def test_each_iteration_is_an_orthogonal_procrustes_problem():
    train = features()
    fits = [itq.create_model(6, num_iterations=count).fit(train) for count in range(1, 6)]
    projected = fits[0].pca_.transform(train)
    for before, after in itertools.pairwise(fits):
        codes = binarize(projected @ before.rotation_).astype(float)
        rotation, _ = orthogonal_procrustes(projected, codes)
        np.testing.assert_allclose(after.rotation_, rotation, atol=1e-9)
        expected = loss(projected, rotation, codes)
        assert after.quantization_losses_[-1] == pytest.approx(expected)
        np.testing.assert_array_equal(after.quantization_losses_[:-1], before.quantization_losses_)


@pytest.mark.parametrize("bits", [1, 5, 12])
def test_the_rotation_is_orthogonal_so_codes_keep_the_distances_of_the_components(bits):
    train = features()
    hasher = itq.create_model(bits).fit(train)
    np.testing.assert_allclose(hasher.rotation_.T @ hasher.rotation_, np.eye(bits), atol=1e-12)
    codes, projected = hasher.encode(train), components(train, bits)
    np.testing.assert_allclose(codes @ codes.T, projected @ projected.T, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_square_that_lies_askew_is_turned_until_its_corners_are_the_codes(seed):
    rng = np.random.default_rng(seed)
    corners = np.repeat([[-1.0, -1], [-1, 1], [1, -1], [1, 1]], 25, axis=0)
    plane, _ = np.linalg.qr(rng.normal(size=(6, 2)))
    train = corners @ plane.T + rng.normal(size=6)
    hasher = itq.create_model(2, seed=seed).fit(train)
    assert hasher.quantization_losses_[-1] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(np.abs(hasher.encode(train)), 1)


def test_no_iterations_are_a_user_error():
    with pytest.raises(UserError, match="num_iterations is 0; give a whole number"):
        itq.create_model(4, num_iterations=0).fit(features())
