import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search import scan as scan_module
from search.scan import as_columns, as_packed, as_rows, nearest_of, scan


def plain(query, codes, allowed, k):
    """Positions and distances by a loop over all items."""
    found = []
    for code in query:
        distances = np.unpackbits(code ^ codes, axis=1).sum(1).tolist()
        pairs = sorted((d, at) for at, d in enumerate(distances) if allowed[at])
        found.append(pairs[:k] + [(-1, -1)] * (min(k, len(codes)) - len(pairs[:k])))
    return [[at for _, at in row] for row in found], [[d for d, _ in row] for row in found]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    code_length=st.integers(1, 140),
    items=st.integers(1, 300),
    queries=st.integers(0, 4),
    k=st.integers(1, 320),
    share=st.sampled_from([None, 0.0, 0.1, 0.9]),
    repeats=st.booleans(),
)
def test_scan_is_the_sort_by_distance_and_position(
    seed, code_length, items, queries, k, share, repeats
):
    rng = np.random.default_rng(seed)
    choices = 3 if repeats else items + queries
    bits = (rng.random((choices, code_length)) < 0.5)[
        rng.integers(0, choices, items + queries) if repeats else np.arange(items + queries)
    ]
    packed = np.packbits(bits, axis=1, bitorder="little")
    query, codes = packed[:queries], packed[queries:]
    allowed = np.ones(items, bool) if share is None else rng.random(items) < share
    found = scan(
        as_rows(query), as_columns(codes), None if share is None else allowed, code_length, k
    )
    positions, distances = plain(query, codes, allowed, k)
    assert found[0].tolist() == positions
    assert found[1].tolist() == distances


@pytest.mark.parametrize("threads", [1, 3])
def test_strips_threads_and_blocks_of_queries_do_not_show(rng, monkeypatch, threads):
    monkeypatch.setattr(scan_module, "PART", 1000)
    monkeypatch.setattr(scan_module, "QUERIES", 3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    codes = rng.integers(0, 4, (20_000, 1), dtype=np.uint8)  # four codes: ties everywhere
    query = rng.integers(0, 4, (7, 1), dtype=np.uint8)
    for k in (1, 10, 3000):
        positions, distances = scan(as_rows(query), as_columns(codes), None, 2, k)
        for row, code in enumerate(query):
            expected = np.bitwise_count(code ^ codes)[:, 0]
            order = np.argsort(expected, kind="stable")[:k]
            assert positions[row].tolist() == order.tolist()
            assert distances[row].tolist() == expected[order].tolist()


def test_lists_merge_by_distance_then_item_and_put_nothing_last():
    left = (np.array([[4, 9, -1]]), np.array([[1, 2, -1]], np.int32))
    right = (np.array([[2, 7]]), np.array([[2, 5]], np.int32))
    items, distances = nearest_of([left, right], 5)
    assert items.tolist() == [[4, 2, 9, 7, -1]]
    assert distances.tolist() == [[1, 2, 2, 5, -1]]


@pytest.mark.parametrize("width", [1, 6, 8, 9, 16])
def test_columns_give_the_packed_codes_back(rng, width):
    packed = rng.integers(0, 256, (5, width), dtype=np.uint8)
    assert (as_packed(as_columns(packed), width) == packed).all()
