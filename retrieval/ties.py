"""Scores of a ranking that is full of ties, from the counts of items at each distance alone.

Hamming distances are small whole numbers, so a ranking is a row of ties: sets of items at one
distance whose order is an accident. All scores here are exact expectations over random orders
inside each tie (McSherry & Najork, "Computing information retrieval performance measures
efficiently in the presence of tied scores", ECIR 2008). The best and the worst order need no
formula of their own: split each tie by grade, best or worst grade first, and no tie is mixed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

TIES = ("expected", "optimistic", "pessimistic", "index")
DENOMINATORS = ("min", "found")

HARMONIC_TABLE = 64  # below it harmonic numbers are summed, above it expanded


@dataclass(frozen=True)
class TieGroups:
    """A ranking as a row of ties, the nearest first; float64 (queries, ties) each.

    Attributes:
        items: items of each tie.
        relevant: relevant ones among them.
        gain: sum of their nDCG gains, 2^grade - 1 (as relevant for single-label data).
    """

    items: Tensor
    relevant: Tensor
    gain: Tensor


@dataclass(frozen=True)
class RankSums:
    """What the metrics need to know about the first K items, float64 (queries, cutoffs) each.

    Attributes:
        precision: sum over the relevant items within K of the precision at their rank.
        precision_over_found: the same over the number of relevant items within K; 0 for none.
        found: relevant items within K.
        dcg: discounted cumulative gain within K, gains over log2(1 + rank).
    """

    precision: Tensor
    precision_over_found: Tensor
    found: Tensor
    dcg: Tensor

    def columns(self, which: list[int]) -> "RankSums":
        """Only these cutoffs."""
        return RankSums(*(values[:, which] for values in vars(self).values()))


def tie_groups(counts: Tensor, ties: str) -> TieGroups:
    """Ties of each query from its counts (queries, grades, distances)."""
    grades = torch.arange(counts.shape[1], device=counts.device, dtype=torch.float64)
    gains = torch.exp2(grades) - 1
    numbers = counts.double()
    if ties == "expected":
        gain = (numbers * gains[:, None]).sum(1)
        return TieGroups(numbers.sum(1), numbers[:, 1:].sum(1), gain)
    if ties == "optimistic":
        numbers, gains = numbers.flip(1), gains.flip(0)
    split = numbers.transpose(1, 2)  # (queries, distances, grades): a tie's grades one by one
    relevant, gain = split * (gains > 0), split * gains
    return TieGroups(split.flatten(1), relevant.flatten(1), gain.flatten(1))


def rank_sums(groups: TieGroups, cutoffs: list[int]) -> RankSums:
    """Expected sums over the first K items for each K in `cutoffs`.

    A cut inside a tie takes the m items of the tie that are left to K, each order being as likely.
    For a tie of n items, r of them relevant, after N items and R relevant ones, the first m items
    add (r/n) Σ_{j=1..m} [R + 1 + (j-1)(r-1)/(n-1)] / (N + j) to the precision sum, which harmonic
    numbers close.
    """
    items, relevant = groups.items, groups.relevant
    before, relevant_before = items.cumsum(1) - items, relevant.cumsum(1) - relevant
    whole = precision_sum(before, items, relevant_before, relevant, items)
    table = discount_table(max(cutoffs), items.device)
    tie, cut = _locate(groups, cutoffs)
    mean_gain = groups.gain / items.clamp(min=1)
    ends = table[(before + items).clamp(max=max(cutoffs)).long()]
    starts = table[before.clamp(max=max(cutoffs)).long()]

    def up_to(values: Tensor) -> Tensor:  # sum over the ties before the one that holds the cut
        sums = torch.nn.functional.pad(values.cumsum(1), (1, 0))
        return sums.gather(1, tie)

    def at(values: Tensor) -> Tensor:  # value of the tie that holds the cut, 0 past the last
        return torch.nn.functional.pad(values, (0, 1)).gather(1, tie)

    n, r, m = at(items), at(relevant), cut
    before_cut, found_before = up_to(items), up_to(relevant)
    precision_before = up_to(whole)
    part = precision_sum(before_cut, n, found_before, r, m)
    over_found = mean_over_found(precision_before, found_before, before_cut, n, r, m)
    found = found_before + r * m / n.clamp(min=1)
    last = table[(before_cut + m).long()] - table[before_cut.long()]
    dcg = up_to(mean_gain * (ends - starts)) + at(mean_gain) * last
    return RankSums(precision_before + part, over_found, found, dcg)


def found_within(groups: TieGroups, ranks: list[int]) -> Tensor:
    """Expected relevant items within each rank, float64 (queries, ranks)."""
    tie, cut = _locate(groups, ranks)
    sums = torch.nn.functional.pad(groups.relevant.cumsum(1), (1, 0)).gather(1, tie)
    share = groups.relevant / groups.items.clamp(min=1)
    return sums + torch.nn.functional.pad(share, (0, 1)).gather(1, tie) * cut


def precision_sum(before: Tensor, n: Tensor, found: Tensor, r: Tensor, m: Tensor) -> Tensor:
    """Expected sum of the precisions at the relevant ones of a tie's first m items.

    Args:
        before: items before the tie, N.
        n: items of the tie.
        found: relevant items before the tie, R.
        r: relevant items of the tie.
        m: items of the tie that count, at most n.
    """
    harmonic = harmonic_difference(before, m)
    spread = (r - 1) / (n - 1).clamp(min=1) * (m - (before + 1) * harmonic)
    return r / n.clamp(min=1) * ((found + 1) * harmonic + spread)


def mean_over_found(
    precision: Tensor, found: Tensor, before: Tensor, n: Tensor, r: Tensor, m: Tensor
) -> Tensor:
    """Expected precision sum over the number of relevant items found, for a cut inside a tie.

    That number is random: R + X, X of the m items left to the cut being relevant, which is
    hypergeometric. Given X = x these sit anywhere among the m, so that the precision sum is
    A + f(x), f being `precision_sum` of a tie of m items with x relevant ones; the result is
    Σ_x P(X = x) (A + f(x)) / (R + x).

    Args:
        precision: precision sum of the ties before the cut, A.
        found: relevant items before the tie, R.
        before, n, r, m: as in `precision_sum`.
    """
    mean = m * r / n.clamp(min=1)
    variance = mean * (1 - r / n.clamp(min=1)) * (n - m) / (n - 1).clamp(min=1)
    reach = 10 * variance.sqrt() + 30  # what lies outside has a probability below 1e-20
    low = torch.maximum((m + r - n).clamp(min=0), (mean - reach).floor())
    high = torch.minimum(torch.minimum(m, r), (mean + reach).ceil())
    width = int((high - low).max()) + 1
    result = torch.empty_like(found)
    rows = max(1, (1 << 20) // (width * found.shape[1]))
    for top in range(0, len(found), rows):
        part = slice(top, top + rows)
        x = low[part, :, None] + torch.arange(width, device=found.device)
        weights = _hypergeometric(x, high[part], n[part], r[part], m[part])
        inside = precision_sum(
            before[part, :, None], m[part, :, None], found[part, :, None], x, m[part, :, None]
        )
        total = found[part, :, None] + x
        values = (precision[part, :, None] + inside) / total.clamp(min=1)
        result[part] = (weights * values).sum(-1)
    return result


def _hypergeometric(x: Tensor, high: Tensor, n: Tensor, r: Tensor, m: Tensor) -> Tensor:
    """P(X = x) along the last axis, x rising by one; ratios of neighbours keep it accurate."""
    n, r, m = n[..., None], r[..., None], m[..., None]
    ratio = (r - x) * (m - x) / ((x + 1) * (n - r - m + x + 1))
    inside = x < high[..., None]
    steps = torch.where(inside, ratio, 1.0).log()
    logs = torch.nn.functional.pad(steps.cumsum(-1)[..., :-1], (1, 0))
    return torch.softmax(logs.masked_fill(x > high[..., None], -torch.inf), -1)


def harmonic_difference(start: Tensor, count: Tensor) -> Tensor:
    """H(start + count) - H(start) of harmonic numbers, exact to rounding however large."""
    numbers = torch.arange(1, HARMONIC_TABLE + 1, device=start.device, dtype=torch.float64)
    table = torch.nn.functional.pad((1 / numbers).cumsum(0), (1, 0))
    end = start + count
    near = (
        table[end.clamp(max=HARMONIC_TABLE).long()] - table[start.clamp(max=HARMONIC_TABLE).long()]
    )
    a, b = start.clamp(min=HARMONIC_TABLE), end.clamp(min=HARMONIC_TABLE)
    # The expansion of H(b) - H(a), its logarithm written so that near ends do not cancel.
    return near + torch.log1p((b - a) / a) + (_tail(b) - _tail(a))


def _tail(x: Tensor) -> Tensor:
    """H(x) - ln x - γ by its asymptotic expansion, below 1e-16 off from x = 64 on."""
    square = 1 / (x * x)
    return 0.5 / x - square * (1 / 12 - square * (1 / 120 - square / 252))


def discount_table(longest: int, device: torch.device) -> Tensor:
    """Sums of the nDCG discounts: entry i is Σ_{k=1..i} 1 / log2(1 + k), float64 (longest + 1,)."""
    ranks = torch.arange(1, longest + 1, device=device, dtype=torch.float64)
    return torch.nn.functional.pad((1 / torch.log2(1 + ranks)).cumsum(0), (1, 0))


def ideal_dcg(counts: Tensor, cutoffs: list[int]) -> Tensor:
    """DCG within each cutoff of the best possible ranking, float64 (queries, cutoffs)."""
    one_tie = counts.sum(2, keepdim=True)  # every item at one distance, then the best order
    groups = tie_groups(one_tie, "optimistic")
    table = discount_table(max(cutoffs), counts.device)
    ends = groups.items.cumsum(1)
    columns = []
    for k in cutoffs:
        stop, start = ends.clamp(max=k).long(), (ends - groups.items).clamp(max=k).long()
        mean_gain = groups.gain / groups.items.clamp(min=1)
        columns.append((mean_gain * (table[stop] - table[start])).sum(1))
    return torch.stack(columns, 1)


def _locate(groups: TieGroups, ranks: list[int]) -> tuple[Tensor, Tensor]:
    """The tie that each rank cuts (the number of ties when past all), and how much of it is in."""
    ends = groups.items.cumsum(1)
    values = torch.tensor(ranks, device=ends.device, dtype=torch.float64)
    values = torch.minimum(values.expand(len(ends), -1), ends[:, -1:]).contiguous()
    tie = torch.searchsorted(ends, values, right=True)
    starts = torch.nn.functional.pad(ends, (1, 0)).gather(1, tie)
    return tie, values - starts
