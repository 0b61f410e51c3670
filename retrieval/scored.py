"""One set of codes with everything that a report says of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from retrieval.codes import Codes
from retrieval.diagnostics import (
    BitReport,
    Neighbours,
    bit_report,
    class_neighbours,
    collision_share,
)
from retrieval.labels import match_labels
from retrieval.metrics import Evaluation, evaluate, mean_average_precision
from retrieval.overlap import Overlap, content_digests, find_overlap
from retrieval.significance import PairedTest, bootstrap_interval, paired_test
from retrieval.worst_classes import WorstClass, worst_classes
from utils.errors import UserError

Images = Callable[[str, int], np.ndarray[Any, np.dtype[Any]]]


@dataclass(frozen=True)
class Scored:
    """One set of codes with everything that the page says of it."""

    codes: Codes
    evaluation: Evaluation
    interval: tuple[float, float]
    best_and_worst: tuple[float, float]  # MAP@ALL, ties 'optimistic' and 'pessimistic'
    bits: BitReport
    collisions: float
    neighbours: Neighbours | None  # single-label data only
    worst: tuple[WorstClass, ...]  # likewise: none of multi-label data
    overlap: Overlap
    paired: PairedTest | None  # against the first set, where the queries are the same

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        found = self.evaluation.to_dict()
        found |= {
            "dataset": self.codes.dataset,
            "protocol": self.codes.protocol,
            "map_interval_95": list(self.interval),
            "map_optimistic": self.best_and_worst[0],
            "map_pessimistic": self.best_and_worst[1],
            "diagnostics": self.bits.to_dict() | {"collision_share": self.collisions},
            "overlap": self.overlap.to_dict(),
        }
        if self.neighbours is not None:
            found["diagnostics"]["swallowed_classes"] = self.neighbours.swallowed()
            found["diagnostics"]["worst_classes"] = [each.to_dict() for each in self.worst]
        if self.paired is not None:
            found["paired_test_against_first"] = vars(self.paired)
        return found


def score_all(
    named: Mapping[str, Codes],
    images: Images | None,
    top_k: tuple[int, ...],
    ties: str,
    radius: int,
    device: torch.device | str | None,
    shared: bool = False,
) -> dict[str, Scored]:
    """Score every set of codes; those after the first are tested against it.

    Arguments as `retrieval.report.write_report`; `images`, when given, are compared by content;
    `shared` as `retrieval.metrics.evaluate`.

    Raises:
        UserError: as `retrieval.metrics.evaluate`; names the codes where there are several.
    """
    scored: dict[str, Scored] = {}
    for name, codes in named.items():
        base = next(iter(scored.values()), None)
        try:
            scored[name] = _score(codes, base, images, top_k, ties, radius, device, shared)
        except UserError as error:
            raise UserError(f"{name}: {error}" if len(named) > 1 else str(error)) from error
    return scored


def _score(
    codes: Codes,
    base: Scored | None,
    images: Images | None,
    top_k: tuple[int, ...],
    ties: str,
    radius: int,
    device: torch.device | str | None,
    shared: bool,
) -> Scored:
    sides = (codes.query_codes, codes.database_codes, codes.query_labels, codes.database_labels)
    common: dict[str, Any] = {"code_length": codes.code_length, "device": device}
    found = evaluate(
        *sides,
        top_k=top_k,
        ties=ties,
        radius=radius,
        train_class_counts=codes.train_class_counts,
        shared=shared,
        **common,
    )
    neighbours = _neighbours(codes, device)
    return Scored(
        codes=codes,
        evaluation=found,
        interval=bootstrap_interval(found.ap_per_query),
        best_and_worst=(
            mean_average_precision(*sides, ties="optimistic", shared=shared, **common),
            mean_average_precision(*sides, ties="pessimistic", shared=shared, **common),
        ),
        bits=bit_report(codes.database_codes, codes.code_length, device),
        collisions=collision_share(codes.database_codes, codes.database_labels, **common),
        neighbours=neighbours,
        worst=() if neighbours is None else worst_classes(codes, found, device),
        overlap=_overlap(codes, images),
        paired=None if base is None else _paired(base, codes, found),
    )


def _neighbours(codes: Codes, device: torch.device | str | None) -> Neighbours | None:
    labels = match_labels(codes.query_labels, codes.database_labels, torch.device("cpu"))
    if labels.multi:
        return None
    return class_neighbours(
        codes.query_codes,
        codes.database_codes,
        labels.query.numpy(),
        labels.database.numpy(),
        code_length=codes.code_length,
        device=device,
    )


def _overlap(codes: Codes, images: Images | None) -> Overlap:
    if images is None:
        return find_overlap(codes)
    digests = [
        content_digests(images(side, index) for index in range(len(side_codes)))
        for side, side_codes in (("query", codes.query_codes), ("database", codes.database_codes))
    ]
    return find_overlap(codes, *digests)


def _paired(base: Scored, codes: Codes, found: Evaluation) -> PairedTest | None:
    """A test against the first codes; the labels, and the names if known, say if queries agree."""
    first = base.codes
    same = np.array_equal(first.query_labels, codes.query_labels)
    if first.query_names is not None and codes.query_names is not None:
        same = same and np.array_equal(first.query_names, codes.query_names)
    return paired_test(base.evaluation.ap_per_query, found.ap_per_query) if same else None
