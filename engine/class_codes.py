"""One code a class to start from: the best that ADSH's objective has for whole classes.

With few bits, codes that start from an untrained network end where several classes share a code,
and no step of a single bit leads out of there. Among codes of whole classes the objective is small
enough to be searched from many starts.
"""

import torch
from torch import Tensor

STARTS = 256  # random codes that are each improved
SWEEPS = 50  # over all bits of all classes, at most


def class_codes(
    sizes: Tensor, bits: int, ratio: float, seed: int, fixed: Tensor | None = None
) -> Tensor:
    """Codes b_c of classes that make Σ_cd n_c n_d (b_cᵀ b_d - q S_cd)² small, S_cd = 1 or -r.

    Bits are set one by one to their best values, from `STARTS` random codes; the best end counts.

    Args:
        sizes: (C,) images n_c of each class.
        bits: q.
        ratio: r.
        seed: of the random codes.
        fixed: (C, q) mean codes of classes whose codes stay, NaN in the rows of the others.

    Returns:
        (C, q) int8, of -1 and +1; rows of fixed classes are the signs of what was given.
    """
    generator = torch.Generator().manual_seed(seed)
    count = len(sizes)
    weights = sizes.cpu().float() / sizes.sum().cpu()
    codes = torch.randint(0, 2, (STARTS, count, bits), generator=generator).float() * 2 - 1
    free = list(range(count))
    if fixed is not None:
        given = fixed.cpu().float()
        free = torch.flatten(given[:, 0].isnan().nonzero()).tolist()
        codes = torch.where(given.isnan(), codes, given)
    wanted = torch.full((count, count), -ratio * bits)
    wanted.fill_diagonal_(bits)
    for _ in range(SWEEPS):
        before = codes.clone()
        for each in free:
            _improve(codes, each, wanted[each], weights)
        if torch.equal(codes, before):
            break
    best = _objective(codes, wanted, weights).argmin()
    return torch.where(codes[best] >= 0, 1, -1).to(torch.int8)


def _improve(codes: Tensor, one: int, wanted: Tensor, weights: Tensor) -> None:
    """Set the bits of one class, in turn, to their best values, in every start, in place.

    codes: (starts, C, q). wanted: (C,) inner products with each class.
    """
    others = weights.clone()
    others[one] = 0  # its product with itself is q whatever its bits are
    products = torch.einsum("scq,sq->sc", codes, codes[:, one])
    for bit in range(codes.shape[2]):
        column = codes[:, :, bit]
        without = products - column * column[:, one, None]
        sign = (((wanted - without) * column) @ others >= 0).float() * 2 - 1
        products = without + column * sign[:, None]
        codes[:, one, bit] = sign


def _objective(codes: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """(starts,) the objective, divided by the number of pairs."""
    errors = (codes @ codes.transpose(1, 2) - wanted).square()
    return torch.einsum("scd,c,d->s", errors, weights, weights)
