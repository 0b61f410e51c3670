"""The square loss of the ablation LTHNet_sq."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from loss.class_balanced import class_balanced_weights


class SquareLoss(nn.Module):
    """Class-balanced regression of the logits on one-hot labels: mean of w_y · ‖ŷ - onehot(y)‖².

    Chen et al., SIGIR 2021, ablation LTHNet_sq, in the form of supervised discrete hashing (Shen
    et al., CVPR 2015): the classifier's output itself is regressed, without a softmax.
    """

    weights: Tensor

    def __init__(self, class_counts: Tensor, beta: float) -> None:
        super().__init__()
        weights = class_balanced_weights(class_counts, beta)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of `logits` (B, C) against class indices `labels` (B,)."""
        targets = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
        errors = (logits - targets).square().sum(1)
        return (self.weights[labels] * errors).mean()


def create_loss(class_counts: Tensor, beta: float = 0.99) -> SquareLoss:
    """Build the loss from the training images per class (C,) and β in [0, 1)."""
    return SquareLoss(torch.as_tensor(class_counts), beta)
