"""How sure a mean over queries is, and whether two sets of codes differ by more than chance."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.errors import UserError

Scores = np.ndarray[Any, np.dtype[np.float64]]

CELLS = 1 << 18  # random numbers held at a time: they stay in the CPU's cache


@dataclass(frozen=True)
class PairedTest:
    """Outcome of `paired_test`.

    Attributes:
        difference: mean of the second scores minus mean of the first.
        low, high: bootstrap confidence interval of the difference.
        p_value: two-sided, of the null hypothesis that the two are exchangeable for every query.
    """

    difference: float
    low: float
    high: float
    p_value: float


def bootstrap_interval(
    scores: Scores, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `scores` over queries (Efron, 1979).

    Args:
        scores: one score a query, such as `Evaluation.ap_per_query`.
        confidence: share of the resampled means between the ends.
        resamples: draws of as many queries, with replacement.
        seed: of the draws.

    Raises:
        UserError: no scores, or a score that is no number.
    """
    scores = _checked(scores)
    if not 0 < confidence < 1:
        raise UserError(f"confidence={confidence}, expected a share between 0 and 1")
    generator = np.random.default_rng(seed)
    rows = max(1, CELLS // len(scores))
    means = [
        scores[generator.integers(0, len(scores), (min(rows, resamples - top), len(scores)))].mean(
            1
        )
        for top in range(0, resamples, rows)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def paired_test(
    first: Scores,
    second: Scores,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> PairedTest:
    """Fisher's randomization test on the per-query differences of two sets of codes.

    The sign of each query's difference is flipped at random; the p-value is the share of the flips
    whose mean is at least as far from zero (Smucker, Allan & Carterette, CIKM 2007), the observed
    one counted in, so that it is never 0.

    Args:
        first: one score a query.
        second: scores of the same queries in the same order.
        confidence: of the interval of the difference.
        resamples: random flips.
        seed: of the flips and of the bootstrap.

    Raises:
        UserError: the two are not scores of equally many queries.
    """
    first, second = _checked(first), _checked(second)
    if len(first) != len(second):
        raise UserError(
            f"got scores of {len(first)} and of {len(second)} queries; "
            "a paired test needs the same queries in the same order"
        )
    differences = second - first
    observed = abs(differences.mean())
    generator = np.random.default_rng(seed)
    rows = max(1, CELLS // len(differences))
    extreme = 0
    for top in range(0, resamples, rows):
        shape = (min(rows, resamples - top), len(differences))
        flipped = (generator.integers(0, 2, shape, dtype=np.int8) * 2 - 1) @ differences
        extreme += int((np.abs(flipped) / len(differences) >= observed * (1 - 1e-12)).sum())
    low, high = bootstrap_interval(differences, confidence, seed=seed)
    return PairedTest(float(differences.mean()), low, high, (extreme + 1) / (resamples + 1))


def _checked(scores: Scores) -> Scores:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise UserError(f"got scores of shape {values.shape}, expected one finite number a query")
    return values
