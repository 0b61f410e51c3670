"""The nearest items on the CPU: counts say how far to look, one more scan picks; no sort."""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from retrieval.histogram_numba import STRIP, fill_distances, run_threads, word_columns

Found = np.ndarray[Any, np.dtype[np.int64]]

MAX_BITS = 1 << 15


def find_nearest(
    query: Tensor, database: Tensor, code_length: int, k: int
) -> tuple[Tensor, Tensor]:
    """Indices and distances int64 (queries, k), ordered by (distance, index).

    Args:
        query: code words int64 (queries, words) on the CPU.
        database: code words int64 (database, words) on the CPU.
        code_length: bits of a code.
        k: items a query, at most the size of the database.
    """
    rows, columns = query.numpy().view(np.uint64), word_columns(database)
    indices, distances = (np.empty((len(query), k), np.int64) for _ in range(2))

    def work(start: int, stop: int) -> None:
        part = slice(start, stop)
        _pick(rows[part], columns, code_length, indices[part], distances[part])

    run_threads(work, len(rows))
    return torch.from_numpy(indices), torch.from_numpy(distances)


@numba.njit(nogil=True, cache=True)
def _pick(query, columns, code_length, indices, distances):  # type: ignore[no-untyped-def]
    items, k = columns.shape[1], indices.shape[1]
    keys = np.empty(items, np.uint16)
    place = np.empty(code_length + 2, np.int64)
    for i in range(len(query)):
        place[:] = 0
        for start in range(0, items, STRIP):
            fill_distances(query[i], columns, start, min(STRIP, items - start), keys[start:])
        for j in range(items):
            place[keys[j] + 1] += 1
        for distance in range(code_length + 1):  # places of the first item at each distance
            place[distance + 1] += place[distance]
        for j in range(items):
            rank = place[keys[j]]
            if rank < k:
                indices[i, rank] = j
                distances[i, rank] = keys[j]
                place[keys[j]] = rank + 1
