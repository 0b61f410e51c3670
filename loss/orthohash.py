"""OrthoHash: one cosine softmax towards fixed, orthogonal binary targets."""

import math

from torch import Tensor, nn
from torch.nn import functional

from loss.hash_centers import hash_centers
from utils.errors import UserError


class OrthoHashLoss(nn.Module):
    """Softmax cross-entropy of s · (cos(v, o_c) - m · [c is the image's class]), o being targets.

    Hoe et al., "One Loss for All: Deep Hashing with a Single Cosine Similarity based Learning
    Objective", NeurIPS 2021, equation 6. The cosine with a code of ±1 carries the quantisation
    error, so no other loss is needed. An image of several labels shares its probability evenly
    among them, as in the authors' code.
    """

    targets: Tensor

    def __init__(self, targets: Tensor, scale: float, margin: float) -> None:
        super().__init__()
        self.register_buffer("targets", functional.normalize(targets), persistent=False)
        self.scale, self.margin = scale, margin

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Loss of real-valued `codes` (B, q) with labels (B,) or multi-hot (B, C)."""
        cosines = functional.normalize(codes) @ self.targets.T
        if labels.ndim == 1:
            labels = functional.one_hot(labels, len(self.targets))
        positives = labels.float()
        logits = self.scale * (cosines - self.margin * positives)
        shares = positives / positives.sum(1, keepdim=True).clamp(min=1)
        return functional.cross_entropy(logits, shares)


def create_loss(
    num_classes: int, code_length: int, scale: float | None = None, margin: float = 0.2
) -> OrthoHashLoss:
    """Build the loss.

    Args:
        scale: s, above 0; None is √q, the authors' 8 at 64 bits.
        margin: m in [0, 1).

    Raises:
        UserError: if scale or margin is out of range.
    """
    scale = math.sqrt(code_length) if scale is None else scale
    if not (math.isfinite(scale) and scale > 0):
        raise UserError(f"OrthoHash: scale is {scale}, expected a number above 0 or null for √q")
    if not 0 <= margin < 1:
        raise UserError(f"OrthoHash: margin is {margin}, expected 0 <= margin < 1")
    return OrthoHashLoss(hash_centers(num_classes, code_length), scale, margin)
