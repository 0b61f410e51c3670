"""Intervals cover the truth as often as they say, and the test's p-values are honest."""

import itertools

import numpy as np
import pytest

from retrieval.significance import bootstrap_interval, paired_test
from utils.errors import UserError


def test_interval_is_near_the_normal_one():
    scores = np.random.default_rng(0).normal(0.4, 0.2, 2000)
    low, high = bootstrap_interval(scores)
    half = 1.96 * scores.std() / np.sqrt(len(scores))
    assert low == pytest.approx(scores.mean() - half, abs=half / 8)
    assert high == pytest.approx(scores.mean() + half, abs=half / 8)


def test_interval_covers_the_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(1)
    hits = 0
    for seed in range(200):
        low, high = bootstrap_interval(generator.beta(1, 3, 60), resamples=300, seed=seed)
        hits += low <= 0.25 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_p_value_equals_that_of_all_flips():
    differences = np.array([0.3, -0.1, 0.2, 0.25, 0.05, -0.02, 0.15, 0.1])
    flips = np.array(list(itertools.product([-1, 1], repeat=8)))
    exact = np.mean(np.abs(flips @ differences) >= abs(differences.sum()) - 1e-12)
    found = paired_test(np.zeros(8), differences, resamples=20_000)
    assert found.p_value == pytest.approx(exact, abs=0.01)
    assert found.difference == pytest.approx(differences.mean())
    assert found.low < found.difference < found.high


def test_equal_scores_differ_by_nothing():
    scores = np.random.default_rng(2).random(50)
    same = paired_test(scores, scores)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_scores_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="of 3 and of 2"):
        paired_test(np.zeros(3), np.zeros(2))
    with pytest.raises(UserError, match="finite"):
        bootstrap_interval(np.array([0.1, np.nan]))
    with pytest.raises(UserError, match="confidence=1"):
        bootstrap_interval(np.zeros(3), confidence=1)
