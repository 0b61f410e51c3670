"""Hash layers one on another, the longest code first (MAH's cascade form)."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from utils.errors import UserError


class CascadeHead(nn.Module):
    """Codes of several lengths: u = tanh(z), each z a linear map of the next longer one's z.

    The longest z is a linear map of the features (Luo et al., arXiv 1809.09329, cascade form).
    """

    def __init__(self, in_features: int, code_length: list[int]) -> None:
        super().__init__()
        widths = [in_features, *sorted(code_length, reverse=True)]
        if len(widths) < 3:
            raise UserError(f"a cascade needs several code lengths, got {code_length}")
        self.layers = nn.ModuleDict(
            {f"codes_{after}": nn.Linear(before, after) for before, after in pairwise(widths)}
        )

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Map backbone features (B, in_features) to named outputs.

        Returns:
            `codes_<q>` (B, q) each, in [-1, 1], whose sign is the binary code.
        """
        outputs, values = {}, inputs
        for name, layer in self.layers.items():
            values = layer(values).float()  # tanh in bf16 soon is 1 and has no slope
            outputs[name] = torch.tanh(values)
        return outputs


def create_model(in_features: int, code_length: list[int]) -> CascadeHead:
    """Build the head; sizes come from the backbone and the training options.

    Raises:
        UserError: for fewer than two code lengths.
    """
    return CascadeHead(in_features, code_length)
