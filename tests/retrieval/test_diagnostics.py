"""Planted faults of codes are found, and sound codes are left in peace."""

import json

import numpy as np
import plain_metrics
import pytest

from retrieval.codes import pack
from retrieval.diagnostics import bit_report, class_neighbours, collision_share


def test_dead_and_duplicate_bits_are_found():
    codes = np.random.default_rng(0).choice([-1, 1], (200, 12))
    assert bit_report(codes).duplicates == bit_report(codes).dead == ()
    codes[:, 3], codes[:, 7] = 1, -1
    codes[:, 5] = codes[:, 1]
    codes[:, 9] = -codes[:, 1]
    report = bit_report(pack(codes), 12)
    assert report.dead == (3, 7)
    assert report.duplicates == ((1, 5), (1, 9), (5, 9))
    assert report.correlation[1, 9] == pytest.approx(-1)
    assert report.balance[[3, 7]].tolist() == [1, 0]
    assert report.entropy[[3, 7]].tolist() == [0, 0]
    assert json.dumps(report.to_dict(), allow_nan=False)


def test_balance_correlation_and_distinct_codes_equal_numpys():
    codes = np.random.default_rng(1).choice([-1, 1], (500, 6), p=[0.3, 0.7])
    report = bit_report(codes)
    assert report.balance == pytest.approx((codes > 0).mean(0))
    assert report.correlation == pytest.approx(np.corrcoef(codes.T))
    assert report.distinct == len(np.unique(codes, axis=0))
    share = (codes > 0).mean(0)
    entropy = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    assert report.entropy == pytest.approx(entropy)


@pytest.mark.parametrize("multi", [False, True])
def test_collisions_equal_a_loop(make_case, multi):
    _, database, _, labels = make_case(bits=5, multi=multi)
    equal = plain_metrics.distances(database, database) == 0
    strange = plain_metrics.grades(labels, labels) == 0
    expected = (equal & strange).any(1).mean()
    assert 0 < expected < 1
    assert collision_share(database, labels) == pytest.approx(expected)


def test_a_swallowed_class_is_named_with_its_swallower():
    generator = np.random.default_rng(0)
    centres = generator.choice([-1, 1], (4, 48))

    def near(classes):
        return centres[classes] * np.where(generator.random((len(classes), 48)) < 0.05, -1, 1)

    query_labels = np.repeat(np.arange(4), 10)
    database_labels = np.repeat(np.arange(4), 50)
    drawn = np.where(query_labels == 3, 1, query_labels)  # class 3 is coded like class 1
    found = class_neighbours(near(drawn), near(database_labels), query_labels, database_labels)
    assert found.swallowed() == [3]
    assert found.rival[3] == 1
    assert found.rival_share[3] == pytest.approx(1)
    assert found.own[:3] == pytest.approx(1)
