"""Linear heads of several code lengths, for tests that want nothing of them but codes."""

import torch
from torch import Tensor, nn


class SeveralHeads(nn.Module):
    def __init__(self, in_features: int, code_length: list[int], num_classes: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({f"codes_{q}": nn.Linear(in_features, q) for q in code_length})
        self.classifier = nn.Linear(code_length[-1], num_classes)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        codes = {name: torch.tanh(head(inputs)) for name, head in self.heads.items()}
        return {**codes, "logits": self.classifier(list(codes.values())[-1])}


def create_model(in_features: int, code_length: list[int], num_classes: int) -> SeveralHeads:
    return SeveralHeads(in_features, code_length, num_classes)
