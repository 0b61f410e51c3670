"""Retrieval metrics of binary codes: one pass over the distances, one call for everything.

Every metric is a function of the counts of items and relevant items at each Hamming distance
from each query. `docs/evaluation.md` gives the definitions, the tie rules and the denominators.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from retrieval.codes import Array
from retrieval.hamming import Pairing, pair_up
from retrieval.labels import class_counts
from retrieval.tally import Tally, tally_queries
from retrieval.ties import DENOMINATORS, TIES
from utils.errors import UserError

GROUPS = ("many", "medium", "few")
MANY_ABOVE, FEW_BELOW = 100, 20  # training images; the bounds of OLTR (Liu et al., CVPR 2019)


@dataclass(frozen=True)
class Evaluation:
    """How well codes retrieve; every mean is over the queries unless it says otherwise.

    A query for which nothing is relevant scores 0 and is counted in `queries_without_relevant`.

    Attributes:
        map: mean average precision over the whole ranked database (MAP@ALL).
        map_at_k: MAP@K, the precision sum over the relevant items found within K, which is what
            published hashing tables mean by MAP@K.
        map_at_k_min: MAP@K, the precision sum over min(K, relevant in all).
        map_per_class: MAP@ALL over each class's queries; None for a class without queries.
        map_macro: mean of `map_per_class`.
        groups: MAP@ALL over the queries of many-shot classes (more than 100 training images),
            medium-shot (20 to 100) and few-shot (fewer than 20); None when there are none.
        precision_at: precision within the first K.
        recall_at: recall within the first K.
        ndcg_at: nDCG within the first K, gain 2^(shared labels) - 1, discount log2(1 + rank).
        precision_within_radius: precision within Hamming distance `radius`; a query that finds
            nothing there scores 0.
        empty_within_radius: share of the queries that find nothing within `radius`.
        radius_precision, radius_recall, radius_empty: the same for every radius 0..q, (q + 1,).
        curve_ranks: ranks of the curve by rank, (points,).
        rank_precision, rank_recall: precision and recall within these ranks, (points,).
        relevant_distances, irrelevant_distances: pairs at each distance 0..q, (q + 1,).
        ap_per_query: average precision of each query over the whole database, (queries,).
        queries, database: numbers of images.
        queries_without_relevant: queries for which nothing in the database is relevant.
        code_length: bits of a code.
        ties: the tie rule: 'expected', 'optimistic', 'pessimistic' or 'index'.
        radius: the radius of `precision_within_radius`.
    """

    map: float
    map_at_k: dict[int, float]
    map_at_k_min: dict[int, float]
    map_per_class: tuple[float | None, ...]
    map_macro: float
    groups: dict[str, float | None]
    precision_at: dict[int, float]
    recall_at: dict[int, float]
    ndcg_at: dict[int, float]
    precision_within_radius: float
    empty_within_radius: float
    radius_precision: tuple[float, ...]
    radius_recall: tuple[float, ...]
    radius_empty: tuple[float, ...]
    curve_ranks: tuple[int, ...]
    rank_precision: tuple[float, ...]
    rank_recall: tuple[float, ...]
    relevant_distances: tuple[int, ...]
    irrelevant_distances: tuple[int, ...]
    ap_per_query: np.ndarray[Any, np.dtype[np.float64]]
    queries: int
    database: int
    queries_without_relevant: int
    code_length: int
    ties: str
    radius: int

    def to_dict(self) -> dict[str, Any]:
        """Everything but `ap_per_query`, ready for JSON: no NaN, no array."""
        values = {name: value for name, value in vars(self).items() if name != "ap_per_query"}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }


def mean_average_precision(
    query_codes: Array,
    database_codes: Array,
    query_labels: Array,
    database_labels: Array,
    top_k: int | None = None,
    ties: str = "expected",
    *,
    denominator: str = "found",
    code_length: int | None = None,
    device: torch.device | str | None = None,
    shared: bool = False,
) -> float:
    """Mean average precision of Hamming ranking.

    Args:
        query_codes: ±1 (queries, q), or packed uint8 (queries, ceil(q / 8)) with `code_length`.
        database_codes: the same for the database.
        query_labels: class indices (queries,) or multi-hot (queries, classes); an item is
            relevant when it shares a label.
        database_labels: the same for the database.
        top_k: rank only the first K; None ranks all of the database.
        ties: 'expected' (over random orders inside a tie), 'optimistic', 'pessimistic', or
            'index' (the database's order).
        denominator: of MAP@K: 'found' (relevant items found within K) or 'min' (min(K, relevant
            in all)). They agree when all of the database is ranked.
        code_length: bits of a code; needed for packed codes.
        device: where to compute; None is the device of the query codes, the CPU for arrays.
        shared: every process of torch.distributed makes this same call; each scores a share of
            the queries and all get the whole result.

    Raises:
        UserError: codes and labels do not fit together, or an option is unknown.
    """
    if denominator not in DENOMINATORS:
        raise UserError(f"denominator={denominator!r}, expected one of {', '.join(DENOMINATORS)}")
    cutoffs = check_options(() if top_k is None else (top_k,), ties)
    pairing = pair_up(
        query_codes, database_codes, query_labels, database_labels, code_length, device
    )
    tally = tally_queries(pairing, cutoffs, ties, shared)
    if top_k is None:
        return float(tally.ap.mean())
    return float(tally.sums[f"ap_{denominator}"][0]) / len(pairing.query)


def evaluate(
    query_codes: Array,
    database_codes: Array,
    query_labels: Array,
    database_labels: Array,
    *,
    code_length: int | None = None,
    top_k: tuple[int, ...] = (100, 1000, 5000),
    ties: str = "expected",
    radius: int = 2,
    train_class_counts: Any = None,
    device: torch.device | str | None = None,
    shared: bool = False,
) -> Evaluation:
    """Every metric at once, from one pass over the query-database distances.

    Arguments as `mean_average_precision`, and:

    Args:
        top_k: cutoffs K of the metrics within K.
        radius: Hamming radius of `precision_within_radius`.
        train_class_counts: training images of each class, (classes,), for the many-, medium- and
            few-shot groups; None leaves these out.

    Raises:
        UserError: codes and labels do not fit together, or an option is unknown.
    """
    cutoffs = check_options(top_k, ties)
    pairing = pair_up(
        query_codes, database_codes, query_labels, database_labels, code_length, device
    )
    if radius < 0:
        raise UserError(f"radius={radius}, expected a Hamming distance from 0 up")
    shots = None if train_class_counts is None else class_counts(train_class_counts)
    if shots is not None and len(shots) < pairing.labels.classes:
        raise UserError(
            f"train_class_counts lists {len(shots)} classes, the labels have "
            f"{pairing.labels.classes}; give one count a class"
        )
    tally = tally_queries(pairing, cutoffs, ties, shared)
    return _summary(tally, pairing, cutoffs, ties, radius, shots)


def check_options(top_k: tuple[int, ...], ties: str) -> list[int]:
    """The cutoffs in rising order; refuses an unknown tie rule and cutoffs below 1."""
    if ties not in TIES:
        raise UserError(f"ties={ties!r}, expected one of {', '.join(TIES)}")
    for k in top_k:
        if k != int(k) or k < 1:
            raise UserError(f"top_k={k}, expected at least 1; leave it out to rank everything")
    return sorted({int(k) for k in top_k})


def _summary(
    tally: Tally,
    pairing: Pairing,
    cutoffs: list[int],
    ties: str,
    radius: int,
    shots: np.ndarray[Any, np.dtype[np.int64]] | None,
) -> Evaluation:
    queries = len(pairing.query)
    means = {name: (total.double() / queries).tolist() for name, total in tally.sums.items()}
    at = {
        name: dict(zip(cutoffs, means.get(name, []), strict=True))  # no cutoffs, no sums
        for name in ("ap_found", "ap_min", "precision", "recall", "ndcg")
    }
    class_ap, class_queries = tally.sums["class_ap"].cpu(), tally.sums["class_queries"].cpu()
    per_class = tuple(
        float(total / count) if count else None
        for total, count in zip(class_ap, class_queries, strict=True)
    )
    present = [value for value in per_class if value is not None]
    within = min(radius, pairing.code_length)
    return Evaluation(
        map=float(tally.ap.mean()),
        map_at_k=at["ap_found"],
        map_at_k_min=at["ap_min"],
        map_per_class=per_class,
        map_macro=sum(present) / max(1, len(present)),
        groups=shot_groups(class_ap.numpy(), class_queries.numpy(), shots),
        precision_at=at["precision"],
        recall_at=at["recall"],
        ndcg_at=at["ndcg"],
        precision_within_radius=means["radius_precision"][within],
        empty_within_radius=means["radius_empty"][within],
        radius_precision=tuple(means["radius_precision"]),
        radius_recall=tuple(means["radius_recall"]),
        radius_empty=tuple(means["radius_empty"]),
        curve_ranks=tuple(tally.ranks),
        rank_precision=tuple(means["rank_precision"]),
        rank_recall=tuple(means["rank_recall"]),
        relevant_distances=tuple(int(x) for x in tally.sums["relevant_pairs"].tolist()),
        irrelevant_distances=tuple(int(x) for x in tally.sums["irrelevant_pairs"].tolist()),
        ap_per_query=tally.ap.cpu().numpy(),
        queries=queries,
        database=len(pairing.database),
        queries_without_relevant=int(tally.sums["without_relevant"]),
        code_length=pairing.code_length,
        ties=ties,
        radius=radius,
    )


def shot_groups(
    class_ap: np.ndarray[Any, np.dtype[np.float64]],
    class_queries: np.ndarray[Any, np.dtype[np.float64]],
    shots: np.ndarray[Any, np.dtype[np.int64]] | None,
) -> dict[str, float | None]:
    """MAP of the many-, medium- and few-shot classes' queries; None without such queries."""
    if shots is None:
        return dict.fromkeys(GROUPS)
    shots = shots[: len(class_ap)]
    members = {
        "many": shots > MANY_ABOVE,
        "medium": (shots >= FEW_BELOW) & (shots <= MANY_ABOVE),
        "few": shots < FEW_BELOW,
    }
    return {
        name: float(class_ap[member].sum() / count)
        if (count := class_queries[member].sum())
        else None
        for name, member in members.items()
    }
