"""Batches are joined in their order until they are enough."""

import pytest

from data.grouping import group_batches


@pytest.mark.parametrize(
    ("lengths", "least", "expected"),
    [
        ([4, 4, 4], 1, [[4], [4], [4]]),
        ([4, 4, 4], 8, [[4, 4], [4]]),
        ([4, 4, 4], 5, [[4, 4], [4]]),
        ([9, 1, 1], 8, [[9], [1, 1]]),
        ([], 8, []),
    ],
)
def test_a_group_ends_when_it_has_enough(lengths, least, expected):
    places = iter(range(100))
    batches = [[next(places) for _ in range(length)] for length in lengths]
    groups = list(group_batches(batches, least))
    assert [[len(batch) for batch in group] for group in groups] == expected
    assert [batch for group in groups for batch in group] == batches
