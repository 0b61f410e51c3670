"""Every per-query score, summed over the queries chunk by chunk."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retrieval.hamming import Pairing, count_pairing
from retrieval.labels import class_sums
from retrieval.stable_order import stable_rank_sums
from retrieval.ties import RankSums, found_within, ideal_dcg, rank_sums, tie_groups
from utils.distributed import gather, share, sum_over_processes, world_size

CHUNK_CELLS = 1 << 21  # query · grade · distance cells counted at a time
CACHE_CELLS = 1 << 17  # of these, cells scored at a time on the CPU, so that they stay in cache
CURVE_POINTS = 50  # ranks at which the precision-recall curve by rank is read


@dataclass(frozen=True)
class Tally:
    """Scores summed over the queries.

    Attributes:
        ap: average precision of each query over all of the database, float64 (queries,).
        ranks: the ranks of the curve by rank.
        sums: name → sum over the queries, one entry a cutoff, rank, distance or class.
    """

    ap: Tensor
    ranks: list[int]
    sums: dict[str, Tensor]


def tally_queries(pairing: Pairing, cutoffs: list[int], ties: str, shared: bool = False) -> Tally:
    """Score all queries; `cutoffs` are the ranks K of the metrics within K, rising.

    shared: all processes make this call; each scores a share of the queries, all get all scores.
    """
    if not shared or world_size() == 1:
        return _tally(pairing, cutoffs, ties)
    queries = len(pairing.query)
    mine = share(queries)
    # A process without a query scores one that does not count.
    rows = pairing.rows(mine.start, max(mine.stop, mine.start + 1))
    own = _tally(rows if len(rows.query) else pairing.rows(0, 1), cutoffs, ties)
    count = mine.stop - mine.start
    sums = {n: sum_over_processes(v if count else v * 0) for n, v in own.sums.items()}
    return Tally(gather(own.ap[:count], queries), own.ranks, sums)


def _tally(pairing: Pairing, cutoffs: list[int], ties: str) -> Tally:
    size = len(pairing.database)
    ranks = sorted({round(x) for x in np.geomspace(1, size, min(size, CURVE_POINTS))})
    cells = pairing.labels.grades * (pairing.code_length + 1)
    ap: list[Tensor] = []
    totals: dict[str, Tensor] = {}
    for chunk in _chunks(pairing, CHUNK_CELLS // cells):
        counts = count_pairing(chunk).counts
        rows = (CACHE_CELLS if counts.device.type == "cpu" else CHUNK_CELLS) // cells
        for part, some in zip(_chunks(chunk, rows), counts.split(max(1, rows)), strict=True):
            part_ap, sums = _score(part, some, cutoffs, ranks, ties)
            ap.append(part_ap)
            totals = {name: totals.get(name, 0) + value for name, value in sums.items()}
    return Tally(torch.cat(ap), ranks, totals)


def _chunks(pairing: Pairing, rows: int) -> list[Pairing]:
    """The pairing cut along its queries."""
    rows = max(1, rows)
    return [pairing.rows(top, top + rows) for top in range(0, len(pairing.query), rows)]


def _score(
    pairing: Pairing, counts: Tensor, cutoffs: list[int], ranks: list[int], ties: str
) -> tuple[Tensor, dict[str, Tensor]]:
    size = len(pairing.database)
    sums, found = _ranked(pairing, counts, [*cutoffs, size], ranks, ties)
    relevant = counts[:, 1:].sum((1, 2)).double()
    ap = sums.precision[:, -1] / relevant.clamp(min=1)
    class_ap, class_queries = class_sums(pairing.labels, ap)
    depths = torch.tensor(ranks, device=ap.device)
    scores = {
        "class_ap": class_ap,
        "class_queries": class_queries,
        "without_relevant": (relevant == 0).sum(),
        "rank_precision": (found / depths).sum(0),
        "rank_recall": (found / relevant.clamp(min=1)[:, None]).sum(0),
        **_by_radius(counts, relevant),
    }
    if cutoffs:
        scores |= _within(sums.columns(list(range(len(cutoffs)))), counts, relevant, cutoffs, size)
    return ap, scores


def _ranked(
    pairing: Pairing, counts: Tensor, cutoffs: list[int], ranks: list[int], ties: str
) -> tuple[RankSums, Tensor]:
    """Sums at the cutoffs, and relevant items found within the ranks of the curve."""
    if ties != "index":
        groups = tie_groups(counts, ties)
        return rank_sums(groups, cutoffs), found_within(groups, ranks)
    both = sorted({*cutoffs, *ranks})
    sums = stable_rank_sums(pairing, counts, both)
    found = sums.found[:, [both.index(rank) for rank in ranks]]
    return sums.columns([both.index(k) for k in cutoffs]), found


def _within(
    sums: RankSums, counts: Tensor, relevant: Tensor, cutoffs: list[int], size: int
) -> dict[str, Tensor]:
    """Metrics within the first K, summed over the queries, (cutoffs,) each."""
    limit = torch.tensor(cutoffs, dtype=torch.float64, device=counts.device)
    ideal = ideal_dcg(counts, cutoffs)
    return {
        "ap_found": sums.precision_over_found.sum(0),
        "ap_min": (sums.precision / torch.minimum(relevant[:, None], limit).clamp(min=1)).sum(0),
        "precision": (sums.found / limit.clamp(max=size)).sum(0),
        "recall": (sums.found / relevant.clamp(min=1)[:, None]).sum(0),
        "ndcg": (sums.dcg / torch.where(ideal > 0, ideal, 1)).sum(0),
    }


def _by_radius(counts: Tensor, relevant: Tensor) -> dict[str, Tensor]:
    """Metrics within each Hamming radius, summed over the queries, (code_length + 1,) each."""
    hits = counts[:, 1:].sum(1)
    items = hits + counts[:, 0]
    inside, hits_inside = items.cumsum(1), hits.cumsum(1).double()
    return {
        "radius_precision": (hits_inside / inside.clamp(min=1)).sum(0),
        "radius_recall": (hits_inside / relevant.clamp(min=1)[:, None]).sum(0),
        "radius_empty": (inside == 0).sum(0),
        "relevant_pairs": hits.sum(0),
        "irrelevant_pairs": (items - hits).sum(0),
    }
