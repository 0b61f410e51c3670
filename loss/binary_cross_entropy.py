"""Sigmoid cross-entropy, for images with several labels."""

from torch import Tensor, nn
from torch.nn import functional


class BinaryCrossEntropyLoss(nn.Module):
    """One logistic loss a class, summed over the classes and averaged over the batch."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of `logits` (B, C) against multi-hot `labels` (B, C)."""
        targets = labels.to(logits.dtype)
        total = functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
        return total / len(logits)


def create_loss() -> BinaryCrossEntropyLoss:
    """Build the loss."""
    return BinaryCrossEntropyLoss()
