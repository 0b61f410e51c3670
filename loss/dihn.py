"""The network's part of deep incremental hashing, DIHN (Wu et al., CVPR 2019)."""

from typing import Any

import torch
from torch import Tensor

from loss.adsh import ADSHLoss, check_weight


class DIHNLoss(ADSHLoss):
    """ADSH's loss with a balance of the bits, μ |Uᵀ1|² over the m images of the sample.

    A batch stands for the sample: its mean code takes the place of the sample's, and the term is
    divided, as the others, by the pairs: μ m |mean u|² / N. Only newly arrived images are drawn to
    their codes (γ); those of old images are given.
    """

    balance: Tensor

    def __init__(self, code_length: int, samples: int, gamma: float, mu: float) -> None:
        super().__init__(code_length, samples, gamma)
        self.mu = mu
        self.register_buffer("balance", torch.zeros(()), persistent=False)  # μ m / N

    def set_sample(self, *, own: Tensor, database: int, **others: Any) -> None:
        """As `ADSHLoss.set_sample`."""
        super().set_sample(own=own, database=database, **others)
        self.balance.fill_(self.mu * len(own) / database)

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Loss of `codes` (B, q) of the images at the places `labels` (B,) of the sample."""
        return super().forward(codes, labels) + self.balance * codes.mean(0).square().sum()


def create_loss(code_length: int, samples: int, gamma: float = 200.0, mu: float = 50.0) -> DIHNLoss:
    """Build the loss; γ weighs the distance between real and binary codes, μ the bits' balance.

    Raises:
        UserError: if a weight is negative or not finite.
    """
    check_weight("gamma", gamma)
    check_weight("mu", mu)
    return DIHNLoss(code_length, samples, gamma, mu)
