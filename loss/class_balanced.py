"""Class-balanced softmax cross-entropy by the effective number of samples."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from utils.errors import UserError


def class_balanced_weights(class_counts: Tensor, beta: float) -> Tensor:
    """Weights (1 - β) / (1 - β^n_c) of classes with n_c training images, shape (C,).

    Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019. A class
    without images never occurs in a batch; it gets the weight of a class with one.

    Raises:
        UserError: if β is not in [0, 1).
    """
    if not 0 <= beta < 1:
        raise UserError(f"class-balanced loss: beta is {beta}, expected 0 <= beta < 1")
    counts = class_counts.clamp(min=1).double()
    return ((1 - beta) / (1 - beta**counts)).float()


class ClassBalancedLoss(nn.Module):
    """Mean of (1 - β) / (1 - β^n_y) · CE(logits, y) over the batch; β = 0 is plain CE."""

    weights: Tensor

    def __init__(self, class_counts: Tensor, beta: float) -> None:
        super().__init__()
        weights = class_balanced_weights(class_counts, beta)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of `logits` (B, C) against class indices `labels` (B,)."""
        losses = functional.cross_entropy(logits, labels, reduction="none")
        return (self.weights[labels] * losses).mean()


def create_loss(class_counts: Tensor, beta: float = 0.99) -> ClassBalancedLoss:
    """Build the loss from the training images per class (C,) and β in [0, 1)."""
    return ClassBalancedLoss(torch.as_tensor(class_counts), beta)
