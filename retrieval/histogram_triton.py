"""Distance counts on a GPU in one kernel: no pair ever leaves the registers.

A program takes a few queries one after another over one slice of the database, which the later
ones find in cache, and adds up `tl.histogram`s of keys (grade, distance). Nothing of size queries
× database is written.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from retrieval.labels import Labels

MAX_BINS = 1024  # counts a query that fit the registers
QUERIES = 4  # queries a program, one after another over the same slice
ITEMS = 1024  # database items a step
SLICE = 1 << 16  # database items a program, at most


def count_distances(query: Tensor, database: Tensor, code_length: int, labels: Labels) -> Tensor:
    """As `histogram_torch.count_distances`, for tensors on a GPU."""
    shape = (len(query), labels.grades, code_length + 1)
    counts = torch.zeros(shape, dtype=torch.int32, device=query.device)
    used = labels.grades * (code_length + 1)
    label_rows = labels.query if labels.multi else labels.query[:, None]
    label_columns = labels.database if labels.multi else labels.database[:, None]
    slices = triton.cdiv(len(database), SLICE)
    slice_items = triton.cdiv(triton.cdiv(len(database), slices), ITEMS) * ITEMS
    grid = (triton.cdiv(len(query), QUERIES), slices)
    _count[grid](
        query,
        database.T.contiguous(),
        label_rows.contiguous(),
        label_columns.T.contiguous(),
        counts,
        len(query),
        len(database),
        slice_items,
        words=query.shape[1],
        label_words=label_rows.shape[1],
        multi=labels.multi,
        distances=code_length + 1,
        used=used,
        bins=max(16, triton.next_power_of_2(used + 1)),
        queries=QUERIES,
        items=ITEMS,
    )
    return counts


@triton.jit
def _popcount(word):  # type: ignore[no-untyped-def]
    """Set bits of each int64, by adding neighbours' sums (Warren, Hacker's Delight, 5-1)."""
    word = word - ((word >> 1) & 0x5555555555555555)
    word = (word & 0x3333333333333333) + ((word >> 2) & 0x3333333333333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F0F0F0F0F
    word = word + (word >> 8)
    word = word + (word >> 16)
    word = word + (word >> 32)
    return (word & 0x7F).to(tl.int32)


@triton.jit
def _count(  # type: ignore[no-untyped-def]
    query,
    database,
    query_labels,
    database_labels,
    counts,
    query_count,
    database_count,
    slice_items,
    words: tl.constexpr,
    label_words: tl.constexpr,
    multi: tl.constexpr,
    distances: tl.constexpr,
    used: tl.constexpr,
    bins: tl.constexpr,
    queries: tl.constexpr,
    items: tl.constexpr,
):
    first = tl.program_id(0) * queries
    begin = tl.program_id(1).to(tl.int64) * slice_items
    lane = tl.arange(0, items)
    bin = tl.arange(0, bins)
    for q in tl.static_range(queries):
        row = tl.minimum(first + q, query_count - 1).to(tl.int64)
        total = tl.zeros([bins], dtype=tl.int32)
        for step in range(0, slice_items, items):
            item = begin + step + lane
            inside = item < database_count
            key = tl.zeros([items], dtype=tl.int32)
            for w in tl.static_range(words):
                word = tl.load(database + w * database_count + item, mask=inside, other=0)
                key += _popcount(word ^ tl.load(query + row * words + w))
            for w in tl.static_range(label_words):
                label = tl.load(database_labels + w * database_count + item, mask=inside, other=0)
                own = tl.load(query_labels + row * label_words + w)
                if multi:
                    key += _popcount(label & own) * distances
                else:
                    key += (label == own).to(tl.int32) * distances
            key = tl.where(inside, key, bins - 1)  # the last bin is no distance
            total += tl.histogram(key, bins)
        limit = tl.where(first + q < query_count, used, 0)
        tl.atomic_add(counts + row * used + bin, total, mask=bin < limit, sem="relaxed")
