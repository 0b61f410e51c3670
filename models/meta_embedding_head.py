"""LTHNet's head: the direct feature enriched from a memory of class centroids and samples."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from utils.errors import UserError


class MetaEmbeddingHead(nn.Module):
    """Dynamic meta-embedding before the hash layer.

    With direct feature v: attention o = softmax(W_h v) over the memory's rows, memory feature
    v_mem = oᵀM, selector e = tanh(W_s v), meta-embedding v_meta = v + e ⊙ v_mem; then
    h = tanh(W_b v_meta) and logits W_c h. Chen et al., SIGIR 2021, section 3; the meta-embedding
    is that of Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019.

    The memory M (memory_rows, feature_dim) is a buffer: saved with the weights, not trained. It
    is zero until `set_memory`, which makes the head a direct one.
    """

    def __init__(
        self,
        in_features: int,
        feature_dim: int,
        code_length: int,
        num_classes: int,
        memory_rows: int,
    ) -> None:
        super().__init__()
        self.feature_layer = nn.Linear(in_features, feature_dim)
        self.hallucinator = nn.Linear(feature_dim, memory_rows)
        self.selector = nn.Linear(feature_dim, feature_dim)
        self.hash_layer = nn.Linear(feature_dim, code_length)
        self.classifier = nn.Linear(code_length, num_classes)
        self.register_buffer("memory", torch.zeros(memory_rows, feature_dim))

    def set_memory(self, memory: Tensor) -> None:
        """Replace the memory in place by `memory` (memory_rows, feature_dim)."""
        cast(Tensor, self.memory).copy_(memory.detach())

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Map backbone features (B, in_features) to named outputs.

        Returns:
            `features` (B, feature_dim), the direct feature; `attention` (B, memory_rows), rows
            sum to 1; `selector` (B, feature_dim), in (-1, 1); `embeddings` (B, feature_dim);
            `codes` (B, code_length), in (-1, 1); `logits` (B, num_classes).
        """
        features = functional.relu(self.feature_layer(inputs))
        attention = torch.softmax(self.hallucinator(features), dim=1)
        memory_feature = attention @ cast(Tensor, self.memory).to(attention.dtype)
        selector = torch.tanh(self.selector(features))
        embeddings = features + selector * memory_feature
        codes = torch.tanh(self.hash_layer(embeddings))
        return {
            "features": features,
            "attention": attention,
            "selector": selector,
            "embeddings": embeddings,
            "codes": codes,
            "logits": self.classifier(codes),
        }


def create_model(
    in_features: int, feature_dim: int, code_length: int, num_classes: int, memory_rows: int
) -> MetaEmbeddingHead:
    """Build the head; `memory_rows` is (k + 1)·C, from the config's `memory`.

    Raises:
        UserError: if the config turns the memory off.
    """
    if memory_rows == 0:
        raise UserError(
            "meta_embedding_head: the config's memory is off; "
            "set memory.centroids=True or use models/direct_head.py"
        )
    return MetaEmbeddingHead(in_features, feature_dim, code_length, num_classes, memory_rows)
