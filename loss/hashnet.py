"""HashNet's weighted pairwise likelihood."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from utils.errors import UserError


class HashNetLoss(nn.Module):
    """Mean over pairs of w_ij [log(1 + exp(α⟨h_i, h_j⟩)) - α s_ij ⟨h_i, h_j⟩].

    Cao et al., "HashNet: Deep Learning to Hash by Continuation", ICCV 2017, equation 4. s_ij is 1
    for images that share a label; w_ij = |S| / |S₁| for these and |S| / |S₀| for the others, so
    that the loss is the mean over similar pairs plus the mean over dissimilar ones, however rare
    one kind is. As in the authors' code, similarity is binary for images of several labels too.

    Pairs are those of two different places in a batch: the authors pair two batches, in which an
    image meets itself by chance alone. Of several processes each pairs its own images.
    """

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Loss of `codes` (B, q) with class indices (B,) or multi-hot labels (B, C).

        A kind of pair that the batch lacks adds 0.
        """
        products = self.alpha * codes @ codes.T
        similar = share_a_label(labels)
        # log(1 + e^x) - x = log(1 + e^-x): one stable softplus serves both kinds.
        losses = functional.softplus(torch.where(similar, -products, products))
        others = ~torch.eye(len(codes), dtype=torch.bool, device=codes.device)
        return _mean(losses, similar & others) + _mean(losses, ~similar & others)


def share_a_label(labels: Tensor) -> Tensor:
    """Whether images i and j share a label, (B, B) bool.

    Args:
        labels: class indices (B,) or multi-hot (B, C).
    """
    if labels.ndim == 1:
        return labels[:, None] == labels
    membership = labels.float()
    return membership @ membership.T > 0.5


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen values, 0 if there are none; no shape depends on the choice."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)


def create_loss(code_length: int, scale: float = 10.0) -> HashNetLoss:
    """Build the loss with α = scale / q, so that α⟨h_i, h_j⟩ spans ±scale at any code length q.

    Args:
        scale: above 0; the authors' code has 10 (`sigmoid_param`, github.com/thuml/HashNet).

    Raises:
        UserError: if `scale` is not a number above 0.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise UserError(f"HashNet loss: scale is {scale}, expected a number above 0")
    return HashNetLoss(scale / code_length)
