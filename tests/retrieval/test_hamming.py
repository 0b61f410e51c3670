"""Counts and neighbours equal those of a loop, however the work is cut into tiles."""

import numpy as np
import plain_metrics
import pytest
import torch

from retrieval import hamming, histogram_torch
from retrieval.codes import pack
from retrieval.hamming import distance_histograms, nearest
from utils.errors import UserError


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("bits", [1, 5, 8, 63, 64, 65, 129, 256])
def test_counts_equal_a_loop(make_case, bits, multi):
    query, database, query_labels, database_labels = make_case(bits=bits, multi=multi)
    found = distance_histograms(query, database, query_labels, database_labels)
    distance = plain_metrics.distances(query, database)
    grade = plain_metrics.grades(query_labels, database_labels)
    for row in range(len(query)):
        for d in range(bits + 1):
            assert found.items[row, d] == (distance[row] == d).sum()
            assert found.relevant[row, d] == ((distance[row] == d) & (grade[row] > 0)).sum()
            for g in range(found.counts.shape[1]):
                expected = ((distance[row] == d) & (grade[row] == g)).sum()
                assert found.counts[row, g, d] == expected


def test_tiles_change_nothing(make_case, monkeypatch):
    case = make_case(queries=7, database=50, bits=12, multi=True)
    whole = histogram_torch.count_distances(*_fields(hamming.pair_up(*case)))
    monkeypatch.setattr(histogram_torch, "TILE_PAIRS", 30)
    monkeypatch.setattr(histogram_torch, "TILE_COLUMNS", 13)
    assert torch.equal(histogram_torch.count_distances(*_fields(hamming.pair_up(*case))), whole)


def _fields(pairing):
    return pairing.query, pairing.database, pairing.code_length, pairing.labels


@pytest.mark.parametrize("bits", [2, 16, 70])
def test_nearest_is_ordered_by_distance_then_index(make_case, bits):
    query, database, _, _ = make_case(bits=bits)
    indices, distances = nearest(pack(query), pack(database), 100, code_length=bits)
    expected = plain_metrics.distances(query, database)
    order = np.argsort(expected, axis=1, kind="stable")
    assert np.array_equal(indices, order)
    assert np.array_equal(distances, np.take_along_axis(expected, order, axis=1))


def test_inputs_that_do_not_fit_are_refused(make_case):
    query, database, query_labels, database_labels = make_case()
    for arguments, says in (
        ((query[:0], database, query_labels[:0], database_labels), "0 query codes"),
        ((query, database[:0], query_labels, database_labels[:0]), "0 database codes"),
        ((query[:, :3], database, query_labels, database_labels), "3 bits"),
        ((query, database, query_labels[:2], database_labels), "2 labels"),
        ((query, database, query_labels - 9, database_labels), "from 0 up"),
        ((query, database, query_labels * 1.0, database_labels), "integer"),
        ((query, database, query_labels[:, None] * 0, database_labels), "both"),
        ((query, database, np.ones((5, 2)), np.ones((40, 3))), "2 classes"),
        ((query, database, np.full((5, 2), 3), np.ones((40, 2))), "multi-hot"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            distance_histograms(*arguments)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="0 nearest"):
        nearest(query, database, 0)
    with pytest.raises(UserError, match="3 bits"):
        nearest(query[:, :3], database, 1)


def test_nearest_without_numba_is_the_same(make_case, monkeypatch):
    query, database, _, _ = make_case(queries=8, database=300, bits=9)
    fast = nearest(query, database, 50)
    monkeypatch.setattr(hamming, "histogram_numba", None)
    monkeypatch.setattr(histogram_torch, "TILE_COLUMNS", 70)
    plain = nearest(query, database, 50)
    assert torch.equal(fast[0], plain[0])
    assert torch.equal(fast[1], plain[1])
