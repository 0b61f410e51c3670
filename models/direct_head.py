"""The direct head: feature layer, hash layer, classifier (LTHNet without its memory)."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class DirectHead(nn.Module):
    """Direct feature v = ReLU(FC(x)), code h = tanh(W_b v), logits W_c h.

    Chen et al., "Long-Tail Hashing", SIGIR 2021, section 3, without the meta-embedding.
    """

    def __init__(
        self, in_features: int, feature_dim: int, code_length: int, num_classes: int
    ) -> None:
        super().__init__()
        self.feature_layer = nn.Linear(in_features, feature_dim)
        self.hash_layer = nn.Linear(feature_dim, code_length)
        self.classifier = nn.Linear(code_length, num_classes)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Map backbone features (B, in_features) to named outputs.

        Returns:
            `features` (B, feature_dim), non-negative; `codes` (B, code_length), in (-1, 1), whose
            sign is the binary code; `logits` (B, num_classes).
        """
        features = functional.relu(self.feature_layer(inputs))
        codes = torch.tanh(self.hash_layer(features))
        return {"features": features, "codes": codes, "logits": self.classifier(codes)}


def create_model(
    in_features: int, feature_dim: int, code_length: int, num_classes: int
) -> DirectHead:
    """Build the head; all sizes come from the training options and the backbone."""
    return DirectHead(in_features, feature_dim, code_length, num_classes)
