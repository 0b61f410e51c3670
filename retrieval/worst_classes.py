"""The classes that retrieve worst: what their queries find instead, and a query that shows it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from retrieval.codes import Codes
from retrieval.diagnostics import sample
from retrieval.hamming import nearest
from retrieval.labels import match_labels
from retrieval.metrics import Evaluation

WORST = 20  # classes, and no more than half of all
FIRST = 100  # nearest images looked at; fewer for a class with fewer in the database
RIVALS = 3
QUERIES = 100  # of a class, at random; bounds the cost

Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class WorstClass:
    """A class and what its queries find.

    Attributes:
        label: the class.
        map: MAP@ALL over its queries.
        own: share of its own images among the nearest.
        rivals: the other classes found most, as (class, share), at most three.
        query: index of its query with the median average precision.
        found: (results,) database indices nearest to that query.
        distances: (results,) their Hamming distances.
    """

    label: int
    map: float
    own: float
    rivals: tuple[tuple[int, float], ...]
    query: int
    found: Rows
    distances: Rows

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "class": self.label,
            "map": self.map,
            "own_share": self.own,
            "rivals": [list(rival) for rival in self.rivals],
        }


def worst_classes(
    codes: Codes, evaluation: Evaluation, device: torch.device | str | None = None, seed: int = 0
) -> tuple[WorstClass, ...]:
    """The classes of lowest MAP, worst first (single-label codes).

    The database is shuffled first, so that ties go to no class by its place in the database.

    Args:
        codes: query and database codes with labels (n,).
        evaluation: of these codes.
    """
    matched = match_labels(codes.query_labels, codes.database_labels, torch.device("cpu"))
    order = np.random.default_rng(seed).permutation(len(codes.database_codes))
    database, labels = codes.database_codes[order], matched.database.numpy()[order]
    scores = enumerate(evaluation.map_per_class)
    scored = [(score, label) for label, score in scores if score is not None]
    worst = []
    for score, label in sorted(scored)[: min(WORST, -(-len(scored) // 2))]:
        asked = np.flatnonzero(matched.query.numpy() == label)
        median = _median(asked, evaluation.ap_per_query)
        asked = np.append(asked[sample(len(asked), seed, QUERIES)], median)
        indices, distances = nearest(
            codes.query_codes[asked], database, FIRST, code_length=codes.code_length, device=device
        )
        found, away = indices.cpu().numpy(), distances.cpu().numpy()
        cut = max(1, min(FIRST, int((labels == label).sum())))
        own, rivals = _shares(labels[found[:-1, :cut]], label)
        worst.append(WorstClass(label, score, own, rivals, int(median), order[found[-1]], away[-1]))
    return tuple(worst)


def _median(queries: Rows, scores: np.ndarray[Any, np.dtype[np.float64]]) -> int:
    """The query in the middle by average precision; the lower one of two."""
    return int(queries[np.argsort(scores[queries], kind="stable")[(len(queries) - 1) // 2]])


def _shares(found: Rows, label: int) -> tuple[float, tuple[tuple[int, float], ...]]:
    """The class's own share of what was found, and the largest shares of others."""
    counts = np.bincount(found.ravel(), minlength=label + 1) / found.size
    own = float(counts[label])
    counts[label] = 0
    largest = np.argsort(-counts, kind="stable")[:RIVALS]
    return own, tuple((int(each), float(counts[each])) for each in largest if counts[each] > 0)
