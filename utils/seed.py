"""Random states drawn from one seed."""

import random
from typing import Any

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


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of all generators that `seed_everything` seeds, as plain values and tensors."""
    _, keys, *numpy_rest = np.random.get_state()  # noqa: NPY002 - as above
    version, internal, gauss = random.getstate()
    return {
        "python": (version, torch.tensor(internal), gauss),
        "numpy": (torch.from_numpy(np.asarray(keys, dtype=np.int64)), *numpy_rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Go on from what `random_states` gave, on the same kind of device or another."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal.tolist()), gauss))
    keys, *numpy_rest = states["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *numpy_rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"], device)
