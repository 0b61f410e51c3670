"""Centres of inverted lists by k-majority in Hamming space, and the nearest centre of each code.

k-means' alternation with bits: a code belongs to its nearest centre, and each bit of a centre is
that of most of its codes. By the popcount kernel of the scan this takes a small part of the time
of FAISS's training and assignment, which go through floating-point vectors and heaps.

Reference: Grana et al., "A fast approach for integrating ORB descriptors in the bag of words
model", SPIE 2013 (k-majority).
"""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from retrieval.histogram_numba import fill_distances
from search.scan import STRIP, Words, smallest

PART = 1 << 14  # codes that a thread takes at a time


def find_centres(rows: Words, count: int, rounds: int, rng: np.random.Generator) -> Words:
    """Centres (count, words) of a sample of codes (n, words), n >= count."""
    centres = rows[np.sort(rng.choice(len(rows), count, replace=False))]
    for _ in range(rounds):
        centres = _majority(rows, nearest_centres(rows, centres), centres, rng)
    return centres


def nearest_centres(rows: Words, centres: Words) -> NDArray[np.int64]:
    """The nearest centre (n,) of each code (n, words), the first of several."""
    columns = np.ascontiguousarray(centres.T)
    found = np.empty(len(rows), np.int64)

    def work(start: int) -> None:
        _nearest(rows[start : start + PART], columns, found[start : start + PART])

    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        list(pool.map(work, range(0, len(rows), PART)))
    return found


def _majority(
    rows: Words, nearest: NDArray[np.int64], centres: Words, rng: np.random.Generator
) -> Words:
    """Centres of the codes that are nearest to them; one that has none becomes some code."""
    order = np.argsort(nearest, kind="stable")
    numbers, starts, sizes = np.unique(nearest[order], return_index=True, return_counts=True)
    bits = np.unpackbits(rows[order].view(np.uint8), axis=1)
    ones = np.add.reduceat(bits, starts, axis=0, dtype=np.int32)
    before = np.unpackbits(centres[numbers].view(np.uint8), axis=1)
    twice, all_of = 2 * ones, sizes[:, None]
    majority = np.where(twice == all_of, before, (twice > all_of).astype(np.uint8))
    found = rows[rng.integers(0, len(rows), len(centres))]
    found[numbers] = np.packbits(majority, axis=1).view(np.uint64)
    return found


@numba.njit(nogil=True, cache=True)
def _nearest(rows, columns, found):  # type: ignore[no-untyped-def]
    keys = np.empty(STRIP, np.uint16)
    for i in range(len(rows)):
        best = np.iinfo(np.uint16).max
        for start in range(0, columns.shape[1], STRIP):
            count = min(STRIP, columns.shape[1] - start)
            fill_distances(rows[i], columns, start, count, keys)
            least = smallest(keys, count)
            if least < best:
                best = least
                for j in range(count):
                    if keys[j] == least:
                        found[i] = start + j
                        break
