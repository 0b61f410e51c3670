"""Hamming distances counted and searched, never with all query-database pairs in memory."""

import os
import shutil
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from retrieval import histogram_torch
from retrieval.codes import Array, code_words
from retrieval.labels import Labels, match_labels
from utils.errors import UserError

histogram_numba: ModuleType | None
histogram_triton: ModuleType | None
try:
    from retrieval import histogram_numba, nearest_numba
except ImportError:  # optional: plain torch counts the same, slower
    histogram_numba = None
try:
    from retrieval import histogram_triton
except ImportError:  # comes with torch's CUDA builds only
    histogram_triton = None


@dataclass(frozen=True)
class DistanceHistograms:
    """How many database items lie at each distance from each query.

    Attributes:
        counts: int32 (queries, grades, code_length + 1); grade 0 is irrelevant, grade g shares g
            labels with the query (single-label data have grades 0 and 1).
    """

    counts: Tensor

    @property
    def items(self) -> Tensor:
        """All items at each distance, int64 (queries, code_length + 1)."""
        return self.counts.sum(1)

    @property
    def relevant(self) -> Tensor:
        """Relevant items at each distance, int64 (queries, code_length + 1)."""
        return self.counts[:, 1:].sum(1)


@dataclass(frozen=True)
class Pairing:
    """Checked codes and labels of queries and database on one device, as the kernels read them."""

    query: Tensor  # code words int64 (queries, words)
    database: Tensor  # code words int64 (database, words)
    code_length: int
    labels: Labels

    def rows(self, start: int, stop: int) -> "Pairing":
        """The pairing with only the queries from `start` to `stop`."""
        labels = self.labels.rows(start, stop)
        return Pairing(self.query[start:stop], self.database, self.code_length, labels)


def pair_up(
    query_codes: Array,
    database_codes: Array,
    query_labels: Array,
    database_labels: Array,
    code_length: int | None = None,
    device: torch.device | str | None = None,
) -> Pairing:
    """Check codes and labels against each other and bring them to `device`.

    Args:
        query_codes: ±1 (queries, q), or packed uint8 (queries, ceil(q / 8)) with `code_length`.
        database_codes: the same for the database.
        query_labels: class indices (queries,) or multi-hot (queries, classes).
        database_labels: the same for the database.
        code_length: bits of a code; needed for packed codes.
        device: where to compute; None is the device of the query codes, the CPU for arrays.

    Raises:
        UserError: shapes or values do not fit; one line says which.
    """
    target = pick_device(query_codes, device)
    query, query_bits = code_words(query_codes, code_length, target)
    database, database_bits = code_words(database_codes, code_length, target)
    if query_bits != database_bits:
        raise UserError(
            f"query codes have {query_bits} bits and database codes {database_bits}; "
            "code both with one model"
        )
    for name, codes, labels in (
        ("query", query, query_labels),
        ("database", database, database_labels),
    ):
        if len(codes) == 0:
            raise UserError(f"got 0 {name} codes, expected at least one; check the {name} split")
        if len(codes) != len(labels):
            raise UserError(f"got {len(codes)} {name} codes and {len(labels)} labels for them")
    matched = match_labels(query_labels, database_labels, target)
    return Pairing(query, database, query_bits, matched)


def pick_device(codes: Array, device: torch.device | str | None) -> torch.device:
    """The device asked for, else that of the codes."""
    if device is not None:
        return _usable_device(device)
    return codes.device if isinstance(codes, Tensor) else torch.device("cpu")


def _usable_device(device: torch.device | str) -> torch.device:
    try:
        target = torch.device(device)
    except RuntimeError:
        target = None
    if target is None or target.type not in ("cpu", "cuda"):
        raise UserError(f"device {str(device)!r}, expected cpu or cuda")
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {str(device)!r}, but torch sees {torch.cuda.device_count()} GPUs; use cpu"
        )
    return target


def distance_histograms(
    query_codes: Array,
    database_codes: Array,
    query_labels: Array,
    database_labels: Array,
    *,
    code_length: int | None = None,
    device: torch.device | str | None = None,
) -> DistanceHistograms:
    """Count items, and relevant items, at each Hamming distance from each query.

    Arguments and errors as `pair_up`. The result takes queries · grades · (q + 1) · 4 bytes.
    """
    pairing = pair_up(
        query_codes, database_codes, query_labels, database_labels, code_length, device
    )
    return count_pairing(pairing)


def count_pairing(pairing: Pairing) -> DistanceHistograms:
    """`distance_histograms` of checked input, by the fastest kernel at hand."""
    kernel = pick_kernel(pairing)
    return DistanceHistograms(
        kernel.count_distances(pairing.query, pairing.database, pairing.code_length, pairing.labels)
    )


def pick_kernel(pairing: Pairing) -> ModuleType:
    """numba on the CPU, Triton on a CUDA GPU, plain torch where these are missing or too small."""
    on_gpu = histogram_triton if builds_kernels() else None
    kernel = {"cpu": histogram_numba, "cuda": on_gpu}.get(pairing.query.device.type)
    bins = pairing.labels.grades * (pairing.code_length + 1)
    return kernel if kernel is not None and bins < kernel.MAX_BINS else histogram_torch


@cache
def builds_kernels() -> bool:
    """Whether there is the C compiler with which Triton builds what launches its kernels."""
    names = [os.environ.get("CC"), "gcc", "clang", "cc"]
    return any(shutil.which(name) for name in names if name)


def nearest(
    query_codes: Array,
    database_codes: Array,
    k: int,
    *,
    code_length: int | None = None,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """The k nearest database items of each query, ordered by (distance, index).

    Args:
        query_codes: ±1 (queries, q), or packed uint8 (queries, ceil(q / 8)) with `code_length`.
        database_codes: the same for the database.
        k: items a query; cut to the size of the database.
        code_length: bits of a code; needed for packed codes.
        device: where to compute; None is the device of the query codes, the CPU for arrays.

    Returns:
        Indices and distances, both int64 (queries, k).

    Raises:
        UserError: codes do not fit together, or k is below 1.
    """
    target = pick_device(query_codes, device)
    query, bits = code_words(query_codes, code_length, target)
    database, database_bits = code_words(database_codes, code_length, target)
    if bits != database_bits:
        raise UserError(f"query codes have {bits} bits and database codes {database_bits}")
    if k < 1 or len(database) == 0:
        raise UserError(f"asked for {k} nearest of {len(database)} items, expected at least 1")
    k = min(k, len(database))
    if histogram_numba is not None and target.type == "cpu" and bits < nearest_numba.MAX_BITS:
        return nearest_numba.find_nearest(query, database, bits, k)
    columns = min(len(database), histogram_torch.TILE_COLUMNS)
    rows = max(1, histogram_torch.TILE_PAIRS // (columns + k))
    best = torch.empty(len(query), k, dtype=torch.int64, device=target)
    for top in range(0, len(query), rows):
        best[top : top + rows] = _smallest_keys(query[top : top + rows], database, bits, k, columns)
    return best % len(database), best // len(database)


def _smallest_keys(query: Tensor, database: Tensor, bits: int, k: int, columns: int) -> Tensor:
    """The k smallest distance · database + index of each query, sorted: unique, so no ties."""
    signs = histogram_torch.word_signs(query, bits)
    best = torch.empty(len(query), 0, dtype=torch.int64, device=query.device)
    for left in range(0, len(database), columns):
        segment = histogram_torch.word_signs(database[left : left + columns], bits)
        keys = histogram_torch.tile_distances(signs, segment) * len(database)
        keys += torch.arange(left, left + len(segment), device=query.device)
        keys = torch.cat([best, keys], 1)
        best = keys.topk(min(k, keys.shape[1]), largest=False).values
    return best
