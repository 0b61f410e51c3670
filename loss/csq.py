"""Central similarity: codes are drawn to their class's hash centre."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from loss.hash_centers import hash_centers


class CentralSimilarityLoss(nn.Module):
    """Mean over bits and images of BCE((h + 1) / 2, (c + 1) / 2), c being the image's centre.

    Yuan et al., "Central Similarity Quantization for Efficient Image and Video Retrieval", CVPR
    2020, equation 4. An image of several labels has the majority of its classes' centres, bit by
    bit; ties, and images without a label, take the bits of one random code (section 3.2). The
    paper's quantisation term is a loss of its own, loss/quantization.py.
    """

    centers: Tensor
    ties: Tensor

    def __init__(self, num_classes: int, code_length: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        ties = 2.0 * torch.randint(2, (code_length,), generator=generator) - 1
        self.register_buffer("ties", ties, persistent=False)
        centers = hash_centers(num_classes, code_length)
        self.register_buffer("centers", centers, persistent=False)

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Loss of `codes` (B, q) in [-1, 1] with class indices (B,) or multi-hot labels (B, C)."""
        centers = self.centers[labels] if labels.ndim == 1 else self._majority(labels)
        return functional.binary_cross_entropy((codes + 1) / 2, (centers + 1) / 2)

    def _majority(self, labels: Tensor) -> Tensor:
        votes = labels.float() @ self.centers
        return torch.where(votes == 0, self.ties, votes.sign())


def create_loss(num_classes: int, code_length: int) -> CentralSimilarityLoss:
    """Build the loss, with a centre for each class."""
    return CentralSimilarityLoss(num_classes, code_length)
