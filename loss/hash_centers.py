"""Hash centres: a fixed code for each class, far from the others' codes."""

import torch
from torch import Tensor

DRAWS = 100  # of all centres, the best of which are kept


def hash_centers(num_classes: int, code_length: int) -> Tensor:
    """Codes of ±1 for C classes, (C, q) float32; the same at every call.

    Yuan et al., "Central Similarity Quantization", CVPR 2020, algorithm 1: rows of a Hadamard
    matrix, then their negatives, where q is a power of 2 and C ≤ 2q; random codes elsewhere.
    """
    if code_length & (code_length - 1) == 0 and num_classes <= 2 * code_length:
        rows = hadamard(code_length)
        return torch.cat([rows, -rows])[:num_classes]
    return random_centers(num_classes, code_length)


def hadamard(order: int) -> Tensor:
    """Sylvester's Hadamard matrix of an order that is a power of 2: any two rows are orthogonal."""
    matrix = torch.ones(1, 1)
    while len(matrix) < order:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
    return matrix


def random_centers(num_classes: int, code_length: int) -> Tensor:
    """Codes with half their bits set: of several draws, the one whose nearest two are farthest."""
    generator = torch.Generator().manual_seed(0)
    draws = [_draw(num_classes, code_length, generator) for _ in range(DRAWS)]
    return min(draws, key=_largest_product)


def _draw(num_classes: int, code_length: int, generator: torch.Generator) -> Tensor:
    order = torch.rand(num_classes, code_length, generator=generator).argsort(1)
    return torch.where(order < code_length // 2, -1.0, 1.0)


def _largest_product(centers: Tensor) -> float:
    """The inner product of the two nearest centres."""
    products = centers @ centers.T
    return float(products.fill_diagonal_(-torch.inf).max())
