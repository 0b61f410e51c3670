"""Codes drawn around a few centres, as trained ones are, and the plain search of them."""

import numpy as np

from search.rows import make_rows


def draw_codes(rng, count, code_length):
    """Packed codes with many ties and repeats."""
    centres = rng.random((5, code_length)) < 0.5
    bits = centres[rng.integers(0, 5, count)] ^ (rng.random((count, code_length)) < 0.1)
    return np.packbits(bits, axis=1, bitorder="little")


def plain_search(query, codes, ids, k):
    """(id, distance) of the k nearest of one query, ordered by (distance, id)."""
    distances = np.unpackbits(query ^ codes, axis=1).sum(1)
    found = sorted(zip(distances.tolist(), ids, strict=True))[:k]
    return [(item, distance) for distance, item in found]


def numbered_rows(first, count):
    """Rows that tell their number."""
    numbers = range(first, first + count)
    return make_rows(
        count,
        path=[f"{number}.png" for number in numbers],
        label=["cat" if number % 3 else "dog" for number in numbers],
        width=[number % 7 for number in numbers],
    )
