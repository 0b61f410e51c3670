"""A GPU's streams by their purpose: of work that waits for room, the more urgent goes first."""

from functools import lru_cache
from typing import Literal

import torch

Purpose = Literal["decoding", "batches", "training", "second", "augmentation"]
PRIORITIES: dict[Purpose, int] = {  # less is more urgent
    "decoding": -2,  # few and small kernels, for which a network would wait
    "batches": -2,
    "training": -1,
    "second": -1,  # what a training step can compute beside the rest
    "augmentation": 0,  # of the batches to come: it fills what training leaves
}


@lru_cache(maxsize=64)
def stream_for(device: torch.device, purpose: Purpose) -> torch.cuda.Stream:
    """The one stream for a purpose: each new one would hold memory of its own."""
    return torch.cuda.Stream(device, priority=PRIORITIES[purpose])
