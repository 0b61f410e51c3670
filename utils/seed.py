"""Random states drawn from one seed."""

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - for libraries that use numpy's global state
    torch.manual_seed(seed)


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """A seed for one epoch, so that a resumed run draws what the uninterrupted one would.

    Each of several processes, by its `rank`, has a seed of its own.
    """
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0])
