"""Hash layers side by side, one a code length, and nothing else (ADSH; MAH's flat form)."""

import torch
from torch import Tensor, nn


class FlatHead(nn.Module):
    """Codes u = tanh(W_q x + b_q) of each length q from the same features x.

    Of one length it is the head of asymmetric deep supervised hashing (Jiang & Li, AAAI 2018); of
    several the flat form of Luo et al., arXiv 1809.09329.
    """

    def __init__(self, in_features: int, code_length: int | list[int]) -> None:
        super().__init__()
        several = isinstance(code_length, list)
        lengths = code_length if isinstance(code_length, list) else [code_length]
        names = {q: f"codes_{q}" if several else "codes" for q in lengths}
        self.layers = nn.ModuleDict({name: nn.Linear(in_features, q) for q, name in names.items()})

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Map backbone features (B, in_features) to named outputs.

        Returns:
            `codes` (B, q), in [-1, 1], whose sign is the binary code; of several lengths
            `codes_<q>` each.
        """
        # tanh in bf16 soon is 1 and has no slope
        return {name: torch.tanh(layer(inputs).float()) for name, layer in self.layers.items()}


def create_model(in_features: int, code_length: int | list[int]) -> FlatHead:
    """Build the head; sizes come from the backbone and the training options."""
    return FlatHead(in_features, code_length)
