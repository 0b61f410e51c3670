import numpy as np
import pytest
from sklearn.base import clone

from models import pca_hashing
from utils.errors import UserError


def features(count=40, dim=12, seed=0):
    return np.random.default_rng(seed).normal(3, 2, (count, dim)) * np.arange(1, dim + 1)


@pytest.mark.parametrize("bits", [1, 5, 12])
def test_codes_equal_the_projection_by_singular_vectors_up_to_sign(bits):
    train, query = features(), features(seed=1)
    _, _, components = np.linalg.svd(train - train.mean(0), full_matrices=False)
    expected = (query - train.mean(0)) @ components[:bits].T
    codes = pca_hashing.create_model(bits).fit(train).encode(query)
    signs = np.sign((codes * expected).sum(0))
    np.testing.assert_allclose(codes, expected * signs, atol=1e-8)


def test_labels_are_not_used():
    train = features()
    plain = pca_hashing.create_model(4).fit(train).encode(train)
    labelled = pca_hashing.create_model(4).fit(train, np.arange(40)).encode(train)
    np.testing.assert_array_equal(plain, labelled)


@pytest.mark.parametrize(("count", "dim"), [(7, 20), (20, 7)])
def test_more_bits_than_images_or_dimensions_is_a_user_error(count, dim):
    with pytest.raises(
        UserError, match=rf"8 bits .* {count} x {dim} .*; lower .*code_length"
    ) as got:
        pca_hashing.create_model(8).fit(features(count, dim))
    assert "\n" not in str(got.value)
    pca_hashing.create_model(7).fit(features(count, dim))


def test_it_is_a_scikit_learn_estimator():
    fitted = pca_hashing.create_model(6).fit(features())
    copy = clone(fitted)
    assert copy.get_params() == {"code_length": 6}
    assert not hasattr(copy, "pca_")
    assert copy.set_params(code_length=3).fit(features()).encode(features()).shape == (40, 3)
