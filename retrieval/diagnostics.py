"""What is wrong with codes when they retrieve badly: idle bits, repeated bits, merged classes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrieval.codes import Array, code_words
from retrieval.hamming import count_pairing, nearest, pair_up, pick_device
from retrieval.histogram_torch import word_signs

Matrix = np.ndarray[Any, np.dtype[np.float64]]

SAMPLE = 2000  # images asked for their neighbours; bounds the cost
NEIGHBOURS = 10
ROWS = 1 << 15  # codes unpacked at a time


@dataclass(frozen=True)
class BitReport:
    """The bits of a set of codes, one entry a bit.

    Attributes:
        balance: share of +1; 0.5 is best, 0 and 1 are dead.
        entropy: entropy of each bit, in bits: 1 is best.
        correlation: Pearson correlation between bits (q, q); 0 with a dead bit.
        dead: bits that are the same in every code.
        duplicates: pairs (i, j) of live bits, i < j, that are equal, or opposite, in every code.
        distinct: number of different codes.
        items: number of codes.
    """

    balance: Matrix
    entropy: Matrix
    correlation: Matrix
    dead: tuple[int, ...]
    duplicates: tuple[tuple[int, int], ...]
    distinct: int
    items: int

    def to_dict(self) -> dict[str, Any]:
        """The figures without the correlation matrix, ready for JSON."""
        away = np.abs(self.correlation - np.diag(np.diag(self.correlation)))
        return {
            "items": self.items,
            "distinct_codes": self.distinct,
            "dead_bits": list(self.dead),
            "duplicate_bits": [list(pair) for pair in self.duplicates],
            "mean_entropy": float(self.entropy.mean()),
            "mean_absolute_correlation": float(away.sum() / max(1, away.size - len(away))),
            "balance": self.balance.tolist(),
        }


@dataclass(frozen=True)
class Neighbours:
    """Whose images a class's queries find among their ten nearest.

    Attributes:
        own: share of the class's own images, (classes,); 0 for a class without sampled queries.
        rival: the other class found most, (classes,); -1 for none.
        rival_share: that class's share, (classes,).
        sampled: queries of each class looked at, (classes,).
    """

    own: Matrix
    rival: np.ndarray[Any, np.dtype[np.int64]]
    rival_share: Matrix
    sampled: np.ndarray[Any, np.dtype[np.int64]]

    def swallowed(self) -> list[int]:
        """Classes whose queries find a rival's images more often than their own, worst first."""
        lost = np.flatnonzero((self.rival >= 0) & (self.rival_share > self.own))
        return [int(c) for c in lost[np.argsort(self.own[lost] - self.rival_share[lost])]]


def bit_report(
    codes: Array, code_length: int | None = None, device: torch.device | str | None = None
) -> BitReport:
    """Examine the bits of codes, ±1 (n, q) or packed with `code_length`.

    Raises:
        UserError: the codes are neither.
    """
    words, bits = code_words(codes, code_length, pick_device(codes, device))
    ones = torch.zeros(bits, dtype=torch.float64, device=words.device)
    products = torch.zeros(bits, bits, dtype=torch.float64, device=words.device)
    for start in range(0, len(words), ROWS):
        signs = word_signs(words[start : start + ROWS], bits).float()
        products += (signs.T @ signs).double()  # whole numbers below 2^24: exact
        ones += (signs > 0).sum(0)
    balance = ones / len(words)
    mean = 2 * balance - 1
    spread = (1 - mean * mean).clamp(min=0).sqrt()
    scale = spread[:, None] * spread
    covariance = products / len(words) - mean[:, None] * mean
    correlation = torch.where(scale > 0, covariance / scale, 0).clamp(-1, 1)
    return BitReport(
        balance=balance.cpu().numpy(),
        entropy=_entropy(balance).cpu().numpy(),
        correlation=correlation.cpu().numpy(),
        dead=tuple(torch.nonzero((ones == 0) | (ones == len(words))).flatten().tolist()),
        duplicates=_duplicates(products, ones, len(words)),
        distinct=len(torch.unique(words, dim=0)),
        items=len(words),
    )


def _entropy(share: Tensor) -> Tensor:
    sides = torch.stack([share, 1 - share])
    return -torch.special.xlogy(sides, sides).sum(0) / np.log(2)


def _duplicates(products: Tensor, ones: Tensor, items: int) -> tuple[tuple[int, int], ...]:
    live = (ones > 0) & (ones < items)
    same = (products.abs() == items) & live[:, None] & live
    pairs = torch.nonzero(torch.triu(same, diagonal=1)).tolist()
    return tuple((i, j) for i, j in pairs)


def collision_share(
    codes: Array,
    labels: Array,
    code_length: int | None = None,
    device: torch.device | str | None = None,
    seed: int = 0,
) -> float:
    """Share of images whose very code also belongs to an image they share no label with.

    Asked of a random sample of at most 2,000 images against all of them.
    """
    pick = sample(len(codes), seed)
    pairing = pair_up(codes[pick], codes, labels[pick], labels, code_length, device)
    return float((count_pairing(pairing).counts[:, 0, 0] > 0).double().mean())


def class_neighbours(
    query_codes: Array,
    database_codes: Array,
    query_labels: np.ndarray[Any, np.dtype[np.int64]],
    database_labels: np.ndarray[Any, np.dtype[np.int64]],
    code_length: int | None = None,
    device: torch.device | str | None = None,
    seed: int = 0,
) -> Neighbours:
    """Count the classes among the ten nearest of each class's queries (single-label data).

    A random sample of at most 2,000 queries is asked. The database is shuffled first, so that
    ties go to no class by its place in the database.
    """
    pick = sample(len(query_codes), seed)
    order = np.random.default_rng(seed).permutation(len(database_codes))
    indices, _ = nearest(
        query_codes[pick], database_codes[order], NEIGHBOURS, code_length=code_length, device=device
    )
    found = np.asarray(database_labels)[order][indices.cpu().numpy()]
    asked = np.asarray(query_labels)[pick]
    classes = 1 + int(max(query_labels.max(), database_labels.max()))
    table = np.zeros((classes, classes))
    np.add.at(table, (asked[:, None], found), 1 / found.shape[1])
    sampled = np.bincount(asked, minlength=classes)
    table /= np.maximum(sampled, 1)[:, None]
    own = table.diagonal().copy()
    np.fill_diagonal(table, 0)
    rival = np.where(table.max(1) > 0, table.argmax(1), -1)
    return Neighbours(own, rival, table.max(1), sampled)


def sample(count: int, seed: int, most: int = SAMPLE) -> np.ndarray[Any, np.dtype[np.int64]]:
    """At most `most` of `count` indices at random, in rising order."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))
