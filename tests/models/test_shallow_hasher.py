"""What every shallow hasher promises; its own method is tested beside it."""

from unittest import SkipTest

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from models import itq, lsh, pca_hashing, sdh, shallow_hasher, spectral_hashing
from utils.errors import UserError

MODULES = {each.__name__: each for each in (itq, lsh, pca_hashing, sdh, spectral_hashing)}
SEEDED = (itq, lsh, sdh)
LABELS = np.arange(60) % 3


@pytest.fixture(params=MODULES)
def module(request):
    return MODULES[request.param]


def features(count=60, dim=10, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    drawn = rng.normal(3, 2, (count, dim)) * np.arange(1, dim + 1)
    return drawn.astype(np.float32).astype(dtype)


def test_fit_returns_itself_and_transform_is_encode(module):
    hasher = module.create_model(6)
    assert hasher.fit(features(), LABELS) is hasher
    codes = hasher.encode(features(seed=1))
    assert codes.shape == (60, 6)
    np.testing.assert_array_equal(codes, hasher.transform(features(seed=1)))
    again = module.create_model(6).fit_transform(features(), LABELS)
    np.testing.assert_array_equal(again, hasher.encode(features()))


def test_a_clone_has_the_parameters_and_nothing_learned(module):
    fitted = module.create_model(6).fit(features(), LABELS)
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert [key for key in vars(copy) if key.endswith("_")] == []
    with pytest.raises(NotFittedError):
        copy.encode(features())
    assert copy.set_params(code_length=3).fit(features(), LABELS).encode(features()).shape[1] == 3


def test_it_ends_a_pipeline(module):
    pipeline = make_pipeline(StandardScaler(), module.create_model(5)).fit(features(), LABELS)
    scaler = StandardScaler().fit(features())
    alone = module.create_model(5).fit(scaler.transform(features()), LABELS)
    expected = alone.encode(scaler.transform(features(seed=1)))
    np.testing.assert_allclose(pipeline.transform(features(seed=1)), expected, atol=1e-12)


NOT_HELD = {"check_dtype_object": "a UserError, as of any features that are no numbers"}


def test_scikit_learns_own_checks_of_an_estimator_pass(module):
    checks = estimator_checks_generator(module.create_model(2), legacy=True)
    ran = 0
    for estimator, check in checks:
        name = getattr(check, "func", check).__name__
        if name in NOT_HELD:
            continue
        try:
            check(estimator)
            ran += 1
        except SkipTest:  # of optional libraries
            continue
    assert ran > 30


def test_its_outputs_have_names(module):
    hasher = module.create_model(3).fit(features(), LABELS).set_output(transform="default")
    prefix = type(hasher).__name__.lower()
    assert hasher.get_feature_names_out().tolist() == [f"{prefix}{bit}" for bit in range(3)]


def test_an_image_is_coded_alone_as_in_company(module, monkeypatch):
    hasher = module.create_model(6).fit(features(), LABELS)
    together = hasher.encode(features(seed=1))
    alone = [hasher.encode(row[None])[0] for row in features(seed=1)]
    np.testing.assert_allclose(together, alone, atol=1e-10)
    monkeypatch.setattr(shallow_hasher, "BLOCK_ROWS", 7)
    np.testing.assert_allclose(hasher.encode(features(seed=1)), together, atol=1e-10)


def test_blocks_do_not_change_what_is_learned(module, monkeypatch):
    expected = module.create_model(6).fit(features(), LABELS).encode(features())
    monkeypatch.setattr(shallow_hasher, "BLOCK_ROWS", 7)
    got = module.create_model(6).fit(features(), LABELS).encode(features())
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_single_and_double_precision_features_give_the_same_codes(module):
    double = module.create_model(6).fit(features(), LABELS).encode(features(seed=1))
    hasher = module.create_model(6).fit(features(dtype=np.float32), LABELS)
    np.testing.assert_array_equal(hasher.encode(features(seed=1, dtype=np.float32)), double)


def test_features_are_left_as_they_were(module):
    given = features()
    module.create_model(6).fit(given, LABELS).encode(given)
    np.testing.assert_array_equal(given, features())


@pytest.mark.parametrize("module", SEEDED)
def test_the_seed_alone_decides(module):
    def codes(seed):
        return module.create_model(6, seed=seed).fit(features(), LABELS).encode(features())

    np.testing.assert_array_equal(codes(1), codes(1))
    assert not np.array_equal(codes(1), codes(2))


def _with(value):
    broken = features()
    broken[4, 2] = value
    return broken


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (_with(np.nan), "1 of 600 features are NaN or infinite"),
        (_with(-np.inf), "1 of 600 features are NaN or infinite"),
        (features()[0], r"shape \(10,\) came, expected \(images, dimensions\)"),
        (features()[:, :0], r"shape \(60, 0\) came, expected"),
        (features()[:0], r"shape \(0, 10\) came, expected"),
        (features().astype(str), "give real numbers"),
        (features() + 1j, "give real numbers"),
        (sparse.csr_array(features()), "sparse features came; give a dense array"),
        (np.array([["a", {}]], dtype=object), "features are objects .* give real numbers"),
    ],
)
def test_features_that_are_no_numbers_are_a_user_error(module, broken, words):
    fitted = module.create_model(6).fit(features(), LABELS)
    for use in (lambda: module.create_model(6).fit(broken, LABELS), lambda: fitted.encode(broken)):
        with pytest.raises(UserError, match=words) as got:
            use()
        assert "\n" not in str(got.value)


def test_other_features_than_those_fitted_are_a_user_error(module):
    fitted = module.create_model(6).fit(features(), LABELS)
    with pytest.raises(UserError, match=r"X has 9 features, but .* is expecting 10"):
        fitted.encode(features()[:, :9])


def test_a_single_training_image_is_a_user_error(module):
    with pytest.raises(UserError, match=r"1 sample .* came; give at least 2"):
        module.create_model(1).fit(features()[:1], LABELS[:1])


@pytest.mark.parametrize("code_length", [0, -3, 2.5, "8", True, None])
def test_a_code_length_that_is_no_number_of_bits_is_a_user_error(module, code_length):
    with pytest.raises(UserError, match=r"code_length is .*; give a whole number of at least 1"):
        module.create_model(code_length).fit(features(), LABELS)
    module.create_model(np.int64(4)).fit(features(), LABELS)


@pytest.mark.parametrize("module", [itq, pca_hashing])
@pytest.mark.parametrize(("count", "dim"), [(7, 20), (20, 7)])
def test_more_bits_than_components_are_a_user_error(module, count, dim):
    with pytest.raises(UserError, match=rf"8 bits .* {count} x {dim} .*; lower .*code_length"):
        module.create_model(8).fit(features(count, dim))
    module.create_model(7).fit(features(count, dim))


@pytest.mark.parametrize("module", [lsh, sdh, spectral_hashing])
def test_there_may_be_more_bits_than_images_and_dimensions(module):
    hasher = module.create_model(40).fit(features(12, 5), LABELS[:12])
    assert hasher.encode(features(12, 5)).shape == (12, 40)


@pytest.mark.parametrize("module", [sdh, spectral_hashing])
def test_identical_training_images_are_a_user_error(module):
    with pytest.raises(UserError, match="all training images have the same features"):
        module.create_model(4).fit(np.ones((60, 10)), LABELS)


@pytest.mark.parametrize(("count", "dim"), [(200, 6), (6, 200)])
def test_components_are_the_covariance_matrix_eigenvectors(count, dim):
    train = features(count, dim)
    values, vectors = np.linalg.eigh(np.cov(train.T))
    found = shallow_hasher.principal_components(train, 3, "a method")
    np.testing.assert_allclose(found.explained_variance_, values[::-1][:3])
    overlap = np.abs((found.components_ * vectors[:, ::-1][:, :3].T).sum(1))
    np.testing.assert_allclose(overlap, 1)


def test_signs_of_zero_are_positive():
    np.testing.assert_array_equal(shallow_hasher.signs(np.array([-2.0, 0, -0.0, 3])), [-1, 1, 1, 1])
