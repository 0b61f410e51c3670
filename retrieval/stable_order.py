"""Scores when ties are broken by the database's order: what older evaluation code reports.

The order of a database is an accident, so these figures are for comparison only. No row is sorted
as a whole: an item's rank is the number of nearer items, known from the counts, plus the number of
items at its own distance before it, carried along from tile to tile.
"""

from types import ModuleType

import torch
from torch import Tensor

from retrieval.hamming import Pairing
from retrieval.histogram_torch import TILE_COLUMNS, tile_distances, tile_grades, word_signs
from retrieval.ties import RankSums

stable_numba: ModuleType | None
try:
    from retrieval import stable_numba
except ImportError:  # optional, as in retrieval.hamming
    stable_numba = None

TILE_PAIRS = 1 << 20  # query-database pairs held at a time


def stable_rank_sums(pairing: Pairing, counts: Tensor, cutoffs: list[int]) -> RankSums:
    """Sums over the first K items of the stable order, for each K in `cutoffs` (rising).

    Args:
        pairing: checked codes and labels.
        counts: the pairing's counts (queries, grades, distances).
        cutoffs: ranks K in rising order.
    """
    if stable_numba is not None and counts.device.type == "cpu" and counts.shape[2] < 1 << 16:
        fields = pairing.query, pairing.database, pairing.labels
        precision, found, dcg = stable_numba.stable_sums(*fields, counts, cutoffs)
        return RankSums(precision, precision / found.clamp(min=1), found, dcg)
    columns = min(len(pairing.database), TILE_COLUMNS)
    rows = max(1, TILE_PAIRS // columns)
    parts = [
        _chunk_sums(pairing.rows(top, top + rows), counts[top : top + rows], cutoffs, columns)
        for top in range(0, len(pairing.query), rows)
    ]
    precision, found, dcg = (torch.cat(values) for values in zip(*parts, strict=True))
    return RankSums(precision, precision / found.clamp(min=1), found, dcg)


def _chunk_sums(
    pairing: Pairing, counts: Tensor, cutoffs: list[int], columns: int
) -> tuple[Tensor, Tensor, Tensor]:
    numbers = counts.long()
    items, relevant = numbers.sum(1), numbers[:, 1:].sum(1)
    ahead, relevant_ahead = items.cumsum(1) - items, relevant.cumsum(1) - relevant
    edges = torch.tensor(cutoffs, device=counts.device)
    sums = torch.zeros(3, len(counts), len(cutoffs) + 1, dtype=torch.float64, device=counts.device)
    signs = word_signs(pairing.query, pairing.code_length)
    for left in range(0, len(pairing.database), columns):
        right = min(left + columns, len(pairing.database))
        segment = word_signs(pairing.database[left:right], pairing.code_length)
        distance, order = tile_distances(signs, segment).sort(dim=1, stable=True)
        grade = tile_grades(pairing.labels, 0, len(signs), left, right).gather(1, order)
        hit = (grade > 0).long()
        rank = ahead.gather(1, distance) + _position(distance, torch.ones_like(hit), ahead)
        found = relevant_ahead.gather(1, distance) + _position(distance, hit, relevant_ahead)
        bucket = torch.searchsorted(edges, rank)  # the first cutoff that the rank lies within
        sums[0].scatter_add_(1, bucket, hit * found.double() / rank)
        sums[1].scatter_add_(1, bucket, hit.double())
        gain = torch.exp2(grade.double()) - 1
        sums[2].scatter_add_(1, bucket, gain / torch.log2(1 + rank.double()))
        ahead = ahead.scatter_add(1, distance, torch.ones_like(hit))
        relevant_ahead = relevant_ahead.scatter_add(1, distance, hit)
    precision, hits, dcg = sums.cumsum(2)[:, :, : len(cutoffs)]
    return precision, hits, dcg


def _position(distance: Tensor, weight: Tensor, like: Tensor) -> Tensor:
    """Running sum of `weight` inside each run of equal sorted distances."""
    totals = torch.zeros_like(like).scatter_add_(1, distance, weight)
    before = totals.cumsum(1) - totals
    return weight.cumsum(1) - before.gather(1, distance)
