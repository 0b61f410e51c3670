"""How a head uses its memory, image by image and class by class."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

MEASURES = {
    "own_attention": "attention to the own classes' rows",
    "entropy": "entropy of attention, 1 = uniform",
    "selector": "mean |e| of the selector",
    "relative_norm": "|e v_mem| / |v|",
    "flipped_bits": "share of bits that the memory flips",
}
NEEDED = ("features", "attention", "selector", "embeddings", "codes")


def memory_use(
    outputs: Mapping[str, Tensor], direct_codes: Tensor, membership: Tensor
) -> dict[str, Tensor]:
    """What MEASURES names, of each image.

    Args:
        outputs: NEEDED of models/meta_embedding_head.py, n rows each; the attention (n, R) has
            the rows of C classes one after the other.
        direct_codes: (n, q), the codes of the same head with an empty memory.
        membership: (n, C) bool, the classes of each image.

    Returns:
        measure → (n,); the entropy is divided by ln R, which uniform attention has.
    """
    attention = outputs["attention"].double()
    by_class = attention.unflatten(1, (membership.shape[1], -1)).sum(2)
    added = outputs["embeddings"] - outputs["features"]
    length = outputs["features"].norm(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    entropy = torch.special.entr(attention).sum(1) / math.log(max(2, attention.shape[1]))
    return {
        "own_attention": (by_class * membership).sum(1),
        "entropy": entropy,
        "selector": outputs["selector"].abs().mean(1).double(),
        "relative_norm": (added.norm(dim=1) / length).double(),
        "flipped_bits": ((outputs["codes"] >= 0) != (direct_codes >= 0)).double().mean(1),
    }


def class_means(values: Tensor, membership: Tensor) -> Tensor:
    """Mean of `values` (n,) over the images of each class, (C,); NaN for a class without any."""
    members = membership.double()
    return (values.double() @ members) / members.sum(0)
