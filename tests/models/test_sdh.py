import itertools
import math

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from models import sdh
from models.sdh import best_bit, discrete_codes, multi_hot
from retrieval.codes import binarize
from utils.errors import UserError


def rings(count=150, seed=0):
    """Three rings, one inside another: no linear function of the plane tells them apart."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    angles = rng.uniform(0, 2 * np.pi, count)
    radius = 1 + 2 * labels + rng.normal(0, 0.1, count)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1), labels


def problem(count=9, bits=5, classes=3, seed=0):
    """Codes, classifier, multi-label targets and embedding of a B-step."""
    rng = np.random.default_rng(seed)
    codes = rng.choice([-1.0, 1.0], (count, bits))
    targets = rng.integers(0, 2, (count, classes)).astype(float)
    return codes, rng.normal(0, 0.5, (bits, classes)), targets, rng.normal(size=(count, bits))


def b_step_objective(codes, classifier, targets, embedding, weight):
    return ((targets - codes @ classifier) ** 2).sum() + weight * ((codes - embedding) ** 2).sum()


def terms(classifier, targets, embedding, weight):
    return targets @ classifier.T + weight * embedding, classifier @ classifier.T


@pytest.mark.parametrize("weight", [1e-5, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_no_bit_of_the_b_step_raises_the_objective(weight, seed):
    codes, *rest = problem(count=40, bits=8, seed=seed)
    linear, gram = terms(*rest, weight)
    values = [b_step_objective(codes, *rest, weight)]
    for bit in [*range(8)] * 4:
        codes[:, bit] = best_bit(codes, linear, gram, bit)
        values.append(b_step_objective(codes, *rest, weight))
    assert (np.diff(values) <= 1e-10).all()
    assert values[-1] < values[0]


def test_a_bit_is_the_better_of_both_values_for_each_image():
    codes, *rest = problem()
    linear, gram = terms(*rest, 0.3)
    chosen = best_bit(codes, linear, gram, 2)
    for image in range(len(codes)):
        value = {}
        for sign in (-1.0, 1.0):
            tried = codes.copy()
            tried[image, 2] = sign
            value[sign] = b_step_objective(tried, *rest, 0.3)
        assert chosen[image] == min(value, key=value.get)


def test_the_b_step_equals_a_plain_loop_and_no_single_bit_can_improve_it():
    codes, classifier, targets, embedding = problem(count=12, bits=6)
    found = discrete_codes(codes, *terms(classifier, targets, embedding, 0.1))
    for image in range(12):
        b = codes[image].copy()
        for _, k in itertools.product(range(10), range(6)):
            q = sum(classifier[k] * targets[image]) + 0.1 * embedding[image, k]
            rest = sum(b[j] * (classifier[j] @ classifier[k]) for j in range(6) if j != k)
            b[k] = 1.0 if q - rest >= 0 else -1.0
        np.testing.assert_array_equal(found[image], b)
    least = b_step_objective(found, classifier, targets, embedding, 0.1)
    for image, bit in itertools.product(range(12), range(6)):
        tried = found.copy()
        tried[image, bit] *= -1
        assert b_step_objective(tried, classifier, targets, embedding, 0.1) >= least - 1e-12


def test_the_b_step_leaves_the_codes_it_starts_from():
    codes, *rest = problem()
    discrete_codes(codes, *terms(*rest, 0.1))
    np.testing.assert_array_equal(codes, problem()[0])


def whole_objective(hasher, train, targets):
    kernel = hasher._kernel(train)
    residual = ((hasher.codes_ - kernel @ hasher.projection_) ** 2).sum()
    embedding = residual + hasher.ridge * (hasher.projection_**2).sum()
    classification = ((targets - hasher.codes_ @ hasher.classifier_) ** 2).sum()
    penalty = hasher.classifier_penalty * (hasher.classifier_**2).sum()
    return classification + penalty + hasher.embedding_weight * embedding


@pytest.mark.parametrize("weight", [1e-5, 1e-1])
def test_the_whole_objective_falls_from_iteration_to_iteration(weight):
    train, labels = rings()
    values = [
        whole_objective(
            sdh.create_model(12, num_iterations=count, embedding_weight=weight).fit(train, labels),
            train,
            multi_hot(labels, 150),
        )
        for count in range(1, 6)
    ]
    assert (np.diff(values) <= 1e-6 * values[0]).all()


@pytest.mark.parametrize("bandwidth", [None, 0.8])
def test_the_parts_equal_ridge_regressions_on_a_plain_kernel(bandwidth):
    train, labels = rings(60)
    hasher = sdh.create_model(6, num_anchors=20, bandwidth=bandwidth).fit(train, labels)
    squared = [[sum((x - a) ** 2) for a in hasher.anchors_] for x in train]
    sigma = bandwidth or math.sqrt(sum(map(sum, squared)) / (60 * 20))
    assert hasher.bandwidth_ == pytest.approx(sigma)
    kernel = [[math.exp(-s / (2 * sigma**2)) for s in row] + [1.0] for row in squared]
    codes = hasher.codes_.astype(float)
    embedding = Ridge(hasher.ridge, fit_intercept=False).fit(kernel, codes)
    np.testing.assert_allclose(hasher.encode(train), embedding.predict(kernel), atol=1e-3)
    classifier = Ridge(1.0, fit_intercept=False).fit(codes, multi_hot(labels, 60))
    np.testing.assert_allclose(hasher.classifier_.T, classifier.coef_, atol=1e-9)


def test_anchors_are_training_images_drawn_without_repetition():
    train, labels = rings(60)
    some = sdh.create_model(6, num_anchors=20).fit(train, labels).anchors_
    assert len({tuple(row) for row in some}) == 20
    assert {tuple(row) for row in some} <= {tuple(row) for row in train}
    every = sdh.create_model(6, num_anchors=1000).fit(train, labels).anchors_
    assert {tuple(row) for row in every} == {tuple(row) for row in train}


@pytest.mark.parametrize("seed", range(3))
def test_codes_of_unseen_images_tell_apart_classes_that_no_line_does(seed):
    hasher = sdh.create_model(16, seed=seed).fit(*rings())
    query, labels = rings(90, seed=9)
    codes = binarize(hasher.encode(query)).astype(int)
    distance = (16 - codes @ codes.T) / 2
    same = labels[:, None] == labels
    assert distance[same].mean() < 1 < 4 < distance[~same].mean()


def test_class_indices_names_and_multi_hot_labels_are_one():
    train, labels = rings()
    expected = sdh.create_model(8).fit(train, labels).encode(train)
    names = np.array(["ant", "bee", "cat"])[labels]
    for given in (labels + 7, names, np.eye(3, dtype=np.uint8)[labels], np.eye(3)[labels] > 0):
        np.testing.assert_array_equal(sdh.create_model(8).fit(train, given).encode(train), expected)


def test_images_that_share_more_labels_have_nearer_codes():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (300, 4))
    train = 3 * labels @ rng.normal(size=(4, 10)) + rng.normal(0, 0.1, (300, 10))
    codes = binarize(sdh.create_model(32).fit(train, labels).encode(train)).astype(int)
    distance = (32 - codes @ codes.T) / 2
    differing = (labels[:, None] != labels).sum(-1)
    means = [distance[differing == count].mean() for count in range(5)]
    assert means == sorted(means)
    assert means[0] < 1 < means[1]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (None, r"y is None; call fit\(X, y\)"),
        (np.zeros(59), r"labels of shape \(59,\) came for 60 images"),
        (np.zeros((60, 2, 2)), r"labels of shape \(60, 2, 2\)"),
        (np.zeros((60, 0)), r"labels of shape \(60, 0\)"),
        (np.float64(3), r"labels of shape \(\)"),
        (np.full((60, 2), 2), "must be 0 and 1"),
        (np.full((60, 2), np.nan), "must be 0 and 1"),
    ],
)
def test_labels_that_do_not_fit_are_a_user_error(labels, words):
    with pytest.raises(UserError, match=words) as got:
        sdh.create_model(6).fit(rings(60)[0], labels)
    assert "\n" not in str(got.value)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"num_anchors": 0}, "num_anchors is 0; give a whole number"),
        ({"num_iterations": 1.5}, "num_iterations is 1.5; give a whole number"),
        ({"classifier_penalty": 0}, "classifier_penalty is 0; give a number above 0"),
        ({"embedding_weight": -1}, "embedding_weight is -1; give a number above 0"),
        ({"ridge": math.nan}, "ridge is nan; give a number above 0"),
        ({"bandwidth": 0}, "bandwidth is 0; give a number above 0"),
        ({"bandwidth": "wide"}, "bandwidth is 'wide'; give a number above 0"),
    ],
)
def test_parameters_out_of_range_are_a_user_error(params, words):
    with pytest.raises(UserError, match=words):
        sdh.create_model(6, **params).fit(*rings(60))
