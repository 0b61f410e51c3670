"""`stable_order` on the CPU: one scan over the database a query, counters instead of sorting."""

import numba
import numpy as np
import torch
from torch import Tensor

from retrieval.histogram_numba import STRIP, fill_distances, popcount, run_threads, word_columns
from retrieval.labels import Labels


def stable_sums(
    query: Tensor, database: Tensor, labels: Labels, counts: Tensor, cutoffs: list[int]
) -> Tensor:
    """Precision sum, relevant found and DCG within each cutoff, float64 (3, queries, cutoffs).

    Args:
        query: code words int64 (queries, words) on the CPU.
        database: code words int64 (database, words) on the CPU.
        labels: of both sides.
        counts: int32 (queries, grades, distances).
        cutoffs: ranks K in rising order.
    """
    rows, columns = query.numpy().view(np.uint64), word_columns(database)
    label_rows, label_items = (
        side if labels.multi else side[:, None] for side in (labels.query, labels.database)
    )
    label_columns, own = word_columns(label_items), label_rows.numpy().view(np.uint64)
    edges, numbers = np.array(cutoffs), counts.numpy()
    sums = np.zeros((3, len(rows), len(cutoffs) + 1))

    def work(start: int, stop: int) -> None:
        part = slice(start, stop)
        found = rows[part], columns, own[part], label_columns, labels.multi, numbers[part]
        _scan(*found, edges, sums[:, part])

    run_threads(work, len(rows))
    return torch.from_numpy(sums.cumsum(2)[:, :, : len(cutoffs)])


@numba.njit(nogil=True, cache=True)
def _fill_grades(label, columns, multi, start, count, grades):  # type: ignore[no-untyped-def]
    """Grades of `count` items from `start` on: shared labels, or 1 for the same class."""
    grades[:count] = 0
    for w in range(len(label)):
        column = columns[w, start : start + count]
        word = label[w]
        for j in range(count):
            grades[j] += popcount(word & column[j]) if multi else np.uint64(word == column[j])


@numba.njit(nogil=True, cache=True)
def _scan(query, columns, labels, label_columns, multi, counts, edges, sums):  # type: ignore[no-untyped-def]
    distances = counts.shape[2]
    keys, grades = np.empty(STRIP, np.uint16), np.empty(STRIP, np.uint16)
    seen, found = np.empty(distances, np.int64), np.empty(distances, np.int64)
    items = columns.shape[1]
    for i in range(len(query)):
        ahead, relevant_ahead = 0, 0
        for d in range(distances):  # items nearer than d, which all rank before those at d
            seen[d], found[d] = ahead, relevant_ahead
            relevant = counts[i, 1:, d].sum()
            ahead += counts[i, 0, d] + relevant
            relevant_ahead += relevant
        for start in range(0, items, STRIP):
            count = min(STRIP, items - start)
            fill_distances(query[i], columns, start, count, keys)
            _fill_grades(labels[i], label_columns, multi, start, count, grades)
            for j in range(count):
                d = keys[j]
                seen[d] += 1
                if grades[j] > 0:
                    found[d] += 1
                    cut = np.searchsorted(edges, seen[d])
                    sums[0, i, cut] += found[d] / seen[d]
                    sums[1, i, cut] += 1
                    sums[2, i, cut] += (2.0 ** grades[j] - 1) / np.log2(1.0 + seen[d])
