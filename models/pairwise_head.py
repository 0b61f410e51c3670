"""The head of pairwise methods: no classifier, a hash layer that sharpens as training goes on."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from utils.errors import UserError


class PairwiseHead(nn.Module):
    """Feature v = ReLU(FC(x)), code h = tanh(β W_b v), with β grown by continuation.

    Cao et al., "HashNet: Deep Learning to Hash by Continuation", ICCV 2017: tanh(βz) tends to
    sgn(z) as β grows, so that codes become binary without a quantisation loss. β changes between
    epochs and never a code's sign. The feature layer stands for AlexNet's last one, which the
    authors fine-tune with the rest.
    """

    beta: Tensor

    def __init__(
        self,
        in_features: int,
        feature_dim: int,
        code_length: int,
        growth: float,
        power: float,
        stages: int,
    ) -> None:
        super().__init__()
        if growth < 0 or power < 0 or stages < 1:
            raise UserError(
                f"continuation: growth {growth}, power {power}, stages {stages}; expected "
                "growth and power of at least 0 and at least one stage; growth 0 keeps beta at 1"
            )
        self.feature_layer = nn.Linear(in_features, feature_dim)
        self.hash_layer = nn.Linear(feature_dim, code_length)
        self.growth, self.power, self.stages = growth, power, stages
        self.register_buffer("beta", torch.ones(()), persistent=False)  # a function of the epoch

    def set_progress(self, epoch: int, num_epochs: int) -> None:
        """Set β for `epoch` of `num_epochs`, from 0; in place, so that captured steps see it."""
        self.beta.fill_(self.beta_at(epoch, num_epochs))

    def beta_at(self, epoch: int, num_epochs: int) -> float:
        """β = (1 + growth · t)^power, t being the share of the stages that are over."""
        finished = self.stages * epoch // num_epochs
        return (1 + self.growth * finished / self.stages) ** self.power

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Map backbone features (B, in_features) to named outputs.

        Returns:
            `features` (B, feature_dim), non-negative; `codes` (B, code_length), in [-1, 1], whose
            sign is the binary code.
        """
        features = functional.relu(self.feature_layer(inputs))
        outputs = self.hash_layer(features).float()  # tanh in bf16 soon is 1 and has no slope
        return {"features": features, "codes": torch.tanh(self.beta * outputs)}


def create_model(
    in_features: int,
    feature_dim: int,
    code_length: int,
    growth: float = 50.0,
    power: float = 0.5,
    stages: int = 50,
) -> PairwiseHead:
    """Build the head; sizes come from the training options and the backbone.

    Args:
        growth, power, stages: β rises from 1 in `stages` equal parts of the training, towards
            (1 + growth)^power. The defaults are the authors' released schedule, (1 + 0.005 n)^0.5
            every 200 of 10,000 steps n; growth 0 keeps β at 1.

    Raises:
        UserError: if growth or power is negative, or there is no stage.
    """
    return PairwiseHead(in_features, feature_dim, code_length, growth, power, stages)
