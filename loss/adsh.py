"""The network's part of asymmetric deep supervised hashing, ADSH (Jiang & Li, AAAI 2018)."""

import math

import torch
from torch import Tensor, nn

from utils.errors import UserError


class ADSHLoss(nn.Module):
    """Real codes u of sampled images against the fixed binary codes V (N, q) of the database.

    The paper's Σ_i [ Σ_j (u_iᵀ v_j - q S_ij)² + γ |v_i - u_i|² ] over the images i of a batch and j
    of the database, divided by the B·N pairs: a mean of squared errors, from 0 to about 4 q², so
    that rates need not follow the database's size. The second sum is over the images that have a
    learned code. All of V enters in closed form: Σ_j (u_iᵀ v_j - q S_ij)² is
    u_iᵀ (VᵀV) u_i - 2 q u_iᵀ t_i + q² Σ_j S_ij², with t_i = Σ_j S_ij v_j, so that a step costs
    O(B q²) whatever N is.

    `set_sample` says what V and S are; between two calls images come by their place in the sample.
    """

    gram: Tensor
    pull: Tensor
    constant: Tensor
    own: Tensor
    anchoring: Tensor

    def __init__(self, code_length: int, samples: int, gamma: float) -> None:
        super().__init__()
        self.code_length = code_length
        self.gamma = gamma
        for name, shape in {
            "gram": (code_length, code_length),  # VᵀV / N
            "pull": (samples, code_length),  # q t_i / N
            "constant": (samples,),  # q² Σ_j S_ij² / N
            "own": (samples, code_length),  # v_i
            "anchoring": (samples,),  # γ / N, or 0 for an image without a learned code
        }.items():
            self.register_buffer(name, torch.zeros(shape), persistent=False)

    def set_sample(
        self,
        *,
        gram: Tensor,
        similar_sum: Tensor,
        squares: Tensor,
        own: Tensor,
        learned: Tensor,
        database: int,
    ) -> None:
        """State the database's codes as the m images of the sample see them, in place.

        Args:
            gram: VᵀV (q, q).
            similar_sum: t_i = Σ_j S_ij v_j (m, q).
            squares: Σ_j S_ij² (m,).
            own: v_i (m, q).
            learned: which of the images have codes that are being learned, bool (m,).
            database: N.
        """
        bits, count = self.code_length, len(own)
        self.gram.copy_(gram / database)
        self.pull[:count] = (bits / database) * similar_sum
        self.constant[:count] = (bits * bits / database) * squares
        self.own[:count] = own
        self.anchoring[:count] = (self.gamma / database) * learned

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Loss of `codes` (B, q) of the images at the places `labels` (B,) of the sample."""
        quadratic = ((codes @ self.gram) * codes).sum(1)
        pairs = quadratic - 2 * (codes * self.pull[labels]).sum(1) + self.constant[labels]
        distance = (self.own[labels] - codes).square().sum(1)
        return (pairs + self.anchoring[labels] * distance).mean()


def check_weight(name: str, value: float) -> None:
    """Raise a UserError unless the weight of a part of the loss is a number from 0 up."""
    if not (math.isfinite(value) and value >= 0):
        raise UserError(f"{name} is {value}, expected a number of at least 0")


def create_loss(code_length: int, samples: int, gamma: float = 200.0) -> ADSHLoss:
    """Build the loss; γ is the weight of the distance between real and binary codes.

    Raises:
        UserError: if γ is negative or not finite.
    """
    check_weight("gamma", gamma)
    return ADSHLoss(code_length, samples, gamma)
