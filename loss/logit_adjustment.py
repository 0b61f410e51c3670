"""Logit-adjusted softmax cross-entropy."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from loss.cross_entropy import checked_smoothing


class LogitAdjustmentLoss(nn.Module):
    """Cross-entropy of logits + τ · log π_c, with π the classes' share of the training images.

    Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, equation 10: frequent
    classes must win by a margin, so that the plain logits are balanced at test time. A class
    without images counts as one image, which keeps its log finite.
    """

    adjustment: Tensor

    def __init__(self, class_counts: Tensor, tau: float, label_smoothing: float) -> None:
        super().__init__()
        counts = class_counts.clamp(min=1).double()
        adjustment = tau * torch.log(counts / counts.sum()).float()
        self.register_buffer("adjustment", adjustment, persistent=False)
        self.label_smoothing = checked_smoothing(label_smoothing)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of `logits` (B, C) against class indices `labels` (B,)."""
        return functional.cross_entropy(
            logits + self.adjustment, labels, label_smoothing=self.label_smoothing
        )


def create_loss(
    class_counts: Tensor, tau: float = 1.0, label_smoothing: float = 0.0
) -> LogitAdjustmentLoss:
    """Build the loss from the training images per class (C,); `tau` 0 is plain CE."""
    return LogitAdjustmentLoss(torch.as_tensor(class_counts), tau, label_smoothing)
