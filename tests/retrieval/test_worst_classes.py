"""The worst classes, their rivals and examples equal those of a plain sort."""

import numpy as np
import pytest

from retrieval.codes import make_codes
from retrieval.metrics import evaluate
from retrieval.worst_classes import worst_classes


@pytest.fixture
def confused():
    """Six classes of 40 database images and 7 queries: 4 is coded like 1, 5 half like 0."""
    generator = np.random.default_rng(0)
    centres = generator.choice(np.array([-1, 1], np.int8), (6, 64))

    def near(classes):
        return centres[classes] * np.where(generator.random((len(classes), 64)) < 0.02, -1, 1)

    query_labels, database_labels = np.repeat(np.arange(6), 7), np.repeat(np.arange(6), 40)
    drawn = np.where(query_labels == 4, 1, query_labels)
    drawn[query_labels == 5] = [0, 0, 0, 5, 5, 5, 5]
    return make_codes(
        query_codes=near(drawn).astype(np.int8),
        database_codes=near(database_labels).astype(np.int8),
        query_labels=query_labels,
        database_labels=database_labels,
    )


def scored(codes):
    sides = (codes.query_codes, codes.database_codes, codes.query_labels, codes.database_labels)
    return evaluate(*sides, code_length=codes.code_length, top_k=())


def test_swapped_classes_come_first_with_what_they_find(confused):
    evaluation = scored(confused)
    worst = worst_classes(confused, evaluation)
    assert len(worst) == 3  # half of the classes
    assert [each.label for each in worst[:2]] == [4, 5]
    assert [each.map for each in worst] == sorted(m for m in evaluation.map_per_class)[:3]
    assert worst[0].own == pytest.approx(0)
    assert worst[0].rivals == ((1, pytest.approx(1)),)
    assert worst[1].own == pytest.approx(4 / 7)
    assert worst[1].rivals == ((0, pytest.approx(3 / 7)),)


def test_the_example_is_the_median_query_and_its_nearest_images(confused):
    evaluation = scored(confused)
    for each in worst_classes(confused, evaluation):
        own = np.flatnonzero(confused.query_labels == each.label)
        ranked = sorted(own, key=lambda index: evaluation.ap_per_query[index])
        assert each.query == ranked[3]
        bits = np.unpackbits(confused.database_codes ^ confused.query_codes[each.query], axis=1)
        distances = bits.sum(1)
        np.testing.assert_array_equal(each.distances, distances[each.found])
        np.testing.assert_array_equal(each.distances, np.sort(distances)[: len(each.found)])


def test_classes_without_queries_are_left_out(confused):
    kept = confused.query_labels != 4
    fewer = make_codes(
        query_codes=confused.query_codes[kept],
        database_codes=confused.database_codes,
        code_length=64,
        query_labels=confused.query_labels[kept],
        database_labels=confused.database_labels,
    )
    assert [each.label for each in worst_classes(fewer, scored(fewer))][:1] == [5]
