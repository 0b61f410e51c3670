"""What no metric may depend on, and how the tie rules are ordered, for any codes and labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.metrics import evaluate, mean_average_precision


@st.composite
def problems(draw):
    """Random codes and labels, single- or multi-label, ties and empty relevant sets included."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    queries, database = draw(st.integers(1, 6)), draw(st.integers(1, 30))
    bits, classes = draw(st.integers(1, 70)), draw(st.integers(1, 5))
    distinct = draw(st.integers(1, 30))  # few distinct codes make long ties
    pool = generator.choice(np.array([-1, 1], np.int8), (distinct, bits))
    codes = [pool[generator.integers(0, distinct, n)] for n in (queries, database)]
    if draw(st.booleans()):
        labels = [generator.integers(0, 2, (n, classes)) for n in (queries, database)]
    else:
        labels = [generator.integers(0, classes, n) for n in (queries, database)]
    return codes[0], codes[1], labels[0], labels[1]


def _flat(evaluation):
    values = [evaluation.map, evaluation.map_macro, evaluation.precision_within_radius]
    for field in ("map_at_k", "map_at_k_min", "precision_at", "recall_at", "ndcg_at"):
        values += list(getattr(evaluation, field).values())
    values += evaluation.rank_precision + evaluation.rank_recall + evaluation.radius_precision
    return values


@settings(max_examples=60)
@given(problems(), st.integers(0, 2**32 - 1))
def test_the_databases_order_changes_nothing(problem, seed):
    query, database, query_labels, database_labels = problem
    order = np.random.default_rng(seed).permutation(len(database))
    before = evaluate(*problem, top_k=(1, 7))
    after = evaluate(query, database[order], query_labels, database_labels[order], top_k=(1, 7))
    assert _flat(after) == pytest.approx(_flat(before), abs=1e-12)


@settings(max_examples=40)
@given(problems(), st.data())
def test_complementing_a_bit_everywhere_changes_nothing(problem, data):
    query, database, query_labels, database_labels = problem
    flips = np.ones(query.shape[1], np.int8)
    flips[data.draw(st.integers(0, len(flips) - 1))] = -1
    after = evaluate(query * flips, database * flips, query_labels, database_labels, top_k=(3,))
    assert _flat(after) == _flat(evaluate(*problem, top_k=(3,)))


@settings(max_examples=60)
@given(problems(), st.integers(1, 40))
def test_optimistic_is_above_expected_and_pessimistic_below(problem, k):
    for options in ({}, {"top_k": k, "denominator": "min"}):
        best, mean, worst, index = (
            mean_average_precision(*problem, ties=ties, **options)
            for ties in ("optimistic", "expected", "pessimistic", "index")
        )
        assert best >= mean - 1e-12
        assert mean >= worst - 1e-12
        assert best + 1e-12 >= index >= worst - 1e-12


@settings(max_examples=40)
@given(problems())
def test_scores_are_shares_and_all_json(problem):
    values = _flat(evaluate(*problem, top_k=(1, 5), train_class_counts=[50] * 5))
    assert all(-1e-12 <= value <= 1 + 1e-12 for value in values)
