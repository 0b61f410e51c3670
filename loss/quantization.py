"""A pull of real-valued codes towards ±1."""

from torch import Tensor, nn


class QuantizationLoss(nn.Module):
    """Mean of (|h| - 1)²: what is lost when the sign replaces the code (Gong et al., ITQ)."""

    def forward(self, codes: Tensor) -> Tensor:
        """Loss of `codes` (B, q)."""
        return (codes.abs() - 1).square().mean()


def create_loss() -> QuantizationLoss:
    """Build the loss."""
    return QuantizationLoss()
