"""Database codes learned directly, bit by bit: ADSH's other turn (Jiang & Li, AAAI 2018).

S_ij is 1 for images that share a label and -r for others, r being how many times rarer similar
pairs are. Nothing here holds S of samples x database as numbers: images of equal labels are one
group, and sums over similar images are sums over similar groups.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 4096  # groups of labels compared at a time: bounds the working memory
FEW_GROUPS = 64  # for so few a product is faster than a scatter
BITS = 16  # of a code that are updated from one product
CPU_ROWS, GPU_ROWS = 1 << 14, 1 << 18  # codes updated at a time: what a cache, or a GPU, holds


class Groups:
    """Images grouped by their labels.

    Attributes:
        of: (n,) int64, the group of each image, on the labels' device.
        sizes: (D,) float64 images of each group.
        label_sets: (D, C) float32 multi-hot labels of each group; None where an image has one
            label, which then is its group.
    """

    def __init__(self, labels: Tensor, num_classes: int) -> None:
        """`labels` are class indices (n,) or multi-hot (n, C)."""
        self.label_sets: Tensor | None = None
        self.of, count = labels, num_classes
        if labels.ndim == 2:
            sets, self.of = torch.unique(labels, dim=0, return_inverse=True)
            self.label_sets, count = sets.float(), len(sets)
        self.sizes = torch.bincount(self.of, minlength=count).double()

    def sums(self, values: Tensor) -> Tensor:
        """Sums (D, q) in float64 over the images of each group, of int8 `values` (n, q)."""
        total = torch.zeros(
            len(self.sizes), values.shape[1], dtype=torch.float64, device=values.device
        )
        every = torch.arange(len(self.sizes), device=values.device)
        for start in range(0, len(values), GPU_ROWS):
            of, part = self.of[start : start + GPU_ROWS], values[start : start + GPU_ROWS].float()
            if len(every) <= FEW_GROUPS:  # exact: sums of ±1 stay below 2^24
                total += (every[:, None] == of).float() @ part
            else:
                total.index_add_(0, of, part.double())
        return total

    def similar_sums(self, asking: Tensor, given: Tensor, values: Tensor) -> Tensor:
        """For each asking group, the sum of `values` over the given groups that share a label.

        Args:
            asking: (a,) groups.
            given: (b,) groups, of which one may come several times.
            values: (b, q) float64.

        Returns:
            (a, q) float64.
        """
        if self.label_sets is None:
            by_group = values.new_zeros(len(self.sizes), values.shape[1])
            return by_group.index_add_(0, given, values)[asking]
        result = values.new_zeros(len(asking), values.shape[1])
        for top in range(0, len(asking), BLOCK):
            rows = self.label_sets[asking[top : top + BLOCK]]
            for left in range(0, len(given), BLOCK):
                columns = self.label_sets[given[left : left + BLOCK]]
                shares = (rows @ columns.T > 0).to(values.dtype)
                result[top : top + BLOCK] += shares @ values[left : left + BLOCK]
        return result


@dataclass(frozen=True)
class Sample:
    """Images drawn for a turn, as the database sees them.

    Attributes:
        rows: (m,) their rows of the database, rising; on the CPU.
        groups: (m,) their groups, on the device.
        similar: (m,) float64, how many database images are similar to each.
        ratio: r, a float64 scalar on the device.
    """

    rows: NDArray[np.int64]
    groups: Tensor
    similar: Tensor
    ratio: Tensor


def make_sample(
    groups: Groups, rows: NDArray[np.int64], dissimilar: float | Literal["auto"]
) -> Sample:
    """A sample of the database's `rows`; r is `dissimilar`, or #similar / #dissimilar pairs."""
    device = groups.sizes.device
    own = groups.of[torch.as_tensor(rows, device=device)]
    every = torch.arange(len(groups.sizes), device=device)
    similar = groups.similar_sums(own, every, groups.sizes[:, None])[:, 0]
    pairs = len(rows) * len(groups.of)
    if dissimilar == "auto":
        ratio = similar.sum() / (pairs - similar.sum()).clamp(min=1)
    else:
        ratio = similar.new_tensor(dissimilar)
    return Sample(rows, own, similar, ratio)


def database_view(groups: Groups, sample: Sample, codes: Tensor) -> dict[str, Tensor]:
    """What the network's turn needs of the database's codes V, int8 (N, q).

    Returns:
        float32 `gram` VᵀV (q, q), `similar_sum` Σ_j S_ij v_j (m, q), `squares` Σ_j S_ij² (m,).
    """
    gram = torch.zeros(codes.shape[1], codes.shape[1], dtype=torch.float64, device=codes.device)
    for start in range(0, len(codes), GPU_ROWS):
        part = codes[start : start + GPU_ROWS].float()  # exact: sums of ±1 stay below 2^24
        gram += part.T @ part
    sums = groups.sums(codes)
    every = torch.arange(len(sums), device=codes.device)
    r = sample.ratio
    near = groups.similar_sums(sample.groups, every, sums)
    return {
        "gram": gram.float(),
        "similar_sum": ((1 + r) * near - r * sums.sum(0)).float(),
        "squares": (sample.similar + r * r * (len(codes) - sample.similar)).float(),
    }


@torch.no_grad()
def update_codes(
    codes: Tensor,
    groups: Groups,
    sample: Sample,
    outputs: Tensor,
    gamma: float,
    *,
    first: int = 0,
    sweeps: int = 1,
) -> None:
    """Lower the objective over the codes V by discrete cyclic coordinate descent, in place.

    For bit k of every image, with the other bits fixed, V_k = -sgn(2 V̂_k Û_kᵀ U_k + Q_k) and
    Q = -2q SᵀU - 2γ Ū: Ū has the rows of U at the sample's images, hats leave out bit k.

    Args:
        codes: V, int8 (N, q), of -1 and +1, or 0 where an image has no code yet.
        outputs: U, (m, q), the network's codes of the sample.
        gamma: γ.
        first: the rows before it keep their codes.
        sweeps: how many times to go through the bits.
    """
    bits = codes.shape[1]
    precise = outputs.double()
    every = torch.arange(len(groups.sizes), device=codes.device)
    near = groups.similar_sums(every, sample.groups, precise)
    r = sample.ratio
    linear = (bits * ((1 + r) * near - r * precise.sum(0))).float()  # (D, q)
    coupling = (precise.T @ precise).float().fill_diagonal_(0)
    anchors = gamma * outputs.float()
    rows = CPU_ROWS if codes.device.type == "cpu" else GPU_ROWS
    for start in range(first, len(codes), rows):
        part = slice(start, min(start + rows, len(codes)))
        wanted = linear[groups.of[part]]
        low, high = np.searchsorted(sample.rows, [part.start, part.stop])
        if low < high:
            places = torch.as_tensor(sample.rows[low:high] - start, device=codes.device)
            wanted[places] += anchors[low:high]
        values = codes[part].T.float().contiguous()
        with _full_precision():
            _descend(values, wanted.T.contiguous(), coupling, sweeps)
        codes[part] = values.T.to(torch.int8)


def _descend(values: Tensor, wanted: Tensor, coupling: Tensor, sweeps: int) -> None:
    """Set each bit in turn to the sign of what is `wanted` of it less what the others give.

    What the others give is computed for a few bits at once, by a product of matrices, and mended
    as these bits change.

    Args:
        values: codes (q, n), in place.
        wanted: (q, n).
        coupling: (q, q), with a diagonal of 0.
    """
    for top in [*range(0, len(values), BITS)] * sweeps:
        few, rows = values[top : top + BITS], coupling[top : top + BITS]
        lacking = torch.addmm(wanted[top : top + BITS], rows, values, alpha=-1)
        for bit in range(len(few)):
            signs = torch.where(lacking[bit] > 0, 1.0, -1.0)
            change = signs - few[bit]
            few[bit] = signs
            lacking[bit + 1 :].addr_(rows[bit + 1 :, top + bit], change, alpha=-1)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Products of float32 matrices without the short mantissas of a GPU's tensor cores."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
