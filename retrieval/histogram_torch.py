"""Distance counts in plain torch: any device, no further library; what the fast kernels must equal.

Distances come from a product of ±1 matrices (exact: small whole numbers), the counts from one
`bincount` over (query, grade, distance) keys, a tile at a time.
"""

import torch
from torch import Tensor

from retrieval.labels import Labels

TILE_PAIRS = 1 << 22  # query-database pairs held at a time, about 100 MB of keys and products
TILE_COLUMNS = 1 << 15  # of these, database items


def count_distances(query: Tensor, database: Tensor, code_length: int, labels: Labels) -> Tensor:
    """Items of each grade at each distance, int32 (queries, grades, code_length + 1).

    Args:
        query: code words int64 (queries, words).
        database: code words int64 (database, words).
        code_length: bits of a code, q.
        labels: of both sides.
    """
    bins = labels.grades * (code_length + 1)
    counts = torch.zeros(len(query), bins, dtype=torch.int32, device=query.device)
    columns = min(len(database), TILE_COLUMNS)
    rows = max(1, TILE_PAIRS // columns)
    for left in range(0, len(database), columns):
        right = min(left + columns, len(database))
        signs = word_signs(database[left:right], code_length)
        for top in range(0, len(query), rows):
            bottom = min(top + rows, len(query))
            keys = tile_distances(word_signs(query[top:bottom], code_length), signs)
            keys += tile_grades(labels, top, bottom, left, right) * (code_length + 1)
            keys += torch.arange(bottom - top, device=keys.device)[:, None] * bins
            found = torch.bincount(keys.view(-1), minlength=(bottom - top) * bins)
            counts[top:bottom] += found.view(-1, bins).int()
    return counts.view(len(query), labels.grades, code_length + 1)


def word_signs(words: Tensor, code_length: int) -> Tensor:
    """Code words int64 (n, words) as ±1 in the float type that multiplies fastest, (n, q)."""
    shifts = torch.arange(64, device=words.device)
    bits = (words[:, :, None] >> shifts & 1).view(len(words), -1)[:, :code_length]
    # Half precision holds whole numbers up to 2048.
    half = words.is_cuda and code_length <= 2048
    return (bits * 2 - 1).to(torch.float16 if half else torch.float32)


def tile_distances(query_signs: Tensor, database_signs: Tensor) -> Tensor:
    """Hamming distances int64 (queries, items) of two sets of ±1 codes: (q - dot product) / 2."""
    products = query_signs @ database_signs.T
    return (query_signs.shape[1] - products.long()) >> 1


def tile_grades(labels: Labels, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Grades int64 (bottom - top, right - left) of database items for queries."""
    query, database = labels.query[top:bottom], labels.database[left:right]
    if not labels.multi:
        return (query[:, None] == database).long()
    signs = [word_bits(side) for side in (query, database)]
    return (signs[0] @ signs[1].T).long()


def word_bits(words: Tensor) -> Tensor:
    """Bits of words int64 (n, words) as float 0 and 1, (n, 64 * words)."""
    shifts = torch.arange(64, device=words.device)
    return (words[:, :, None] >> shifts & 1).view(len(words), -1).float()
