"""LTHNet as its authors published it: one network, with the names of their checkpoints."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbone import IMAGENET_MEAN, IMAGENET_STD
from utils.errors import UserError


class PublishedLTHNet(nn.Module):
    """Chen et al., "Long-tail Hashing", SIGIR 2021, section 3, ResNet-34 and head in one.

    With pooled features x: direct feature v = ReLU(W_f x + b_f), attention o = softmax(W_h v + b_h)
    over the prototypes M, selector e = tanh(W_s v + b_s), v_meta = v + e ⊙ oᵀM, code
    h = tanh(W_b v_meta + b_b), logits W_c h + b_c. Nothing is normalised. Without meta-embedding
    v_meta = v. The authors' code puts x through a ReLU first, which changes nothing after a
    residual network, whose features are means of numbers from 0 up.

    Its state dict has the names of the authors' `model`: the network's children by number as
    `features`, `fc` (W_f), `fc_hallucinator`, `fc_selector`, `hash_layer`, `classifier`; and their
    `prototypes`, which stand beside it, as a buffer.
    """

    mean = IMAGENET_MEAN
    std = IMAGENET_STD

    MEMORY_PARTS = ("prototypes",)

    def __init__(
        self,
        features: nn.Sequential,
        in_features: int,
        feature_dim: int,
        code_length: int,
        num_classes: int,
        memory_rows: int,
        meta_embedding: bool = True,
    ) -> None:
        super().__init__()
        self.features = features
        self.fc = nn.Linear(in_features, feature_dim)
        self.fc_hallucinator = nn.Linear(feature_dim, memory_rows)
        self.fc_selector = nn.Linear(feature_dim, feature_dim)
        self.hash_layer = nn.Linear(feature_dim, code_length)
        self.classifier = nn.Linear(code_length, num_classes)
        self.register_buffer("prototypes", torch.zeros(memory_rows, feature_dim))
        self.meta_embedding = meta_embedding

    def set_memory(self, memory: Tensor) -> None:
        """Replace the prototypes in place by `memory` (memory_rows, feature_dim)."""
        cast(Tensor, self.prototypes).copy_(memory.detach())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map normalised images (B, 3, S, S) to named outputs.

        Returns:
            `features` (B, feature_dim), the direct feature; `codes` (B, code_length), in (-1, 1),
            whose sign is the binary code; `logits` (B, num_classes).
        """
        pooled = functional.relu(self.features(images).flatten(1))
        features = functional.relu(self.fc(pooled))
        embeddings = features
        if self.meta_embedding:
            attention = torch.softmax(self.fc_hallucinator(features), dim=1)
            memory_feature = attention @ cast(Tensor, self.prototypes).to(attention.dtype)
            embeddings = features + torch.tanh(self.fc_selector(features)) * memory_feature
        codes = torch.tanh(self.hash_layer(embeddings))
        return {"features": features, "codes": codes, "logits": self.classifier(codes)}


def create_model(
    feature_dim: int,
    code_length: int,
    num_classes: int,
    memory_rows: int,
    arch: str = "resnet34",
    meta_embedding: bool = True,
) -> PublishedLTHNet:
    """Build the network; sizes come from the training options, `memory_rows` from `memory`.

    Args:
        arch: a ResNet of torchvision; the authors publish ResNet-34.
        meta_embedding: off for checkpoints trained with --dynamic-meta-embedding off.

    Raises:
        UserError: for another architecture, or if the config turns the memory off.
    """
    from torchvision.models import resnet  # slow to import

    create: Callable[[], resnet.ResNet] | None = getattr(resnet, arch, None)
    if create is None or not arch.startswith("resnet"):
        raise UserError(f"published_lthnet: arch is '{arch}', expected a ResNet such as resnet34")
    if memory_rows == 0:
        raise UserError(
            "published_lthnet: the config's memory is off; set memory.centroids=True, and "
            "memory.dpp_samples so that there are as many rows as prototypes in the checkpoint"
        )
    network = create()
    layers = [child for name, child in network.named_children() if name != "fc"]
    return PublishedLTHNet(
        nn.Sequential(*layers),
        network.fc.in_features,
        feature_dim,
        code_length,
        num_classes,
        memory_rows,
        meta_embedding,
    )
