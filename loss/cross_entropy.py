"""Softmax cross-entropy."""

from torch import Tensor, nn
from torch.nn import functional

from utils.errors import UserError


class CrossEntropyLoss(nn.Module):
    """Mean softmax cross-entropy, with optional label smoothing."""

    def __init__(self, label_smoothing: float) -> None:
        super().__init__()
        self.label_smoothing = checked_smoothing(label_smoothing)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of `logits` (B, C) against class indices `labels` (B,)."""
        return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)


def checked_smoothing(label_smoothing: float) -> float:
    """`label_smoothing` itself.

    Raises:
        UserError: if it is not in [0, 1).
    """
    if not 0 <= label_smoothing < 1:
        raise UserError(
            f"label_smoothing is {label_smoothing}, expected 0 <= label_smoothing < 1; "
            "0 turns it off"
        )
    return label_smoothing


def create_loss(label_smoothing: float = 0.0) -> CrossEntropyLoss:
    """Build the loss; `label_smoothing` in [0, 1)."""
    return CrossEntropyLoss(label_smoothing)
