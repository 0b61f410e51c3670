"""OrthoHash's head: a hash layer whose bits are balanced by batch normalisation."""

from torch import Tensor, nn
from torch.nn import functional


class NormalizedHead(nn.Module):
    """Feature f = ReLU(FC(x)), code v = BN(W_b f), without a tanh.

    Hoe et al., "One Loss for All", NeurIPS 2021, section 3.3: batch normalisation centres each
    output, so that its sign is + and - equally often.
    """

    def __init__(self, in_features: int, feature_dim: int, code_length: int) -> None:
        super().__init__()
        self.feature_layer = nn.Linear(in_features, feature_dim)
        self.hash_layer = nn.Linear(feature_dim, code_length, bias=False)
        self.norm = nn.BatchNorm1d(code_length)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Map backbone features (B, in_features) to named outputs.

        Returns:
            `features` (B, feature_dim), non-negative; `codes` (B, code_length), unbounded, whose
            sign is the binary code.
        """
        features = functional.relu(self.feature_layer(inputs))
        return {"features": features, "codes": self.norm(self.hash_layer(features))}


def create_model(in_features: int, feature_dim: int, code_length: int) -> NormalizedHead:
    """Build the head; all sizes come from the training options and the backbone."""
    return NormalizedHead(in_features, feature_dim, code_length)
