"""Values of the host on the device, without making host and device wait for each other."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def with_index(device: torch.device | str) -> torch.device:
    """Return cuda:0 for cuda: tensors carry the index of their device."""
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def upload(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Copy values to the device in the order of its stream; the host goes on at once."""
    tensor = torch.as_tensor(values)
    if device.type == "cuda" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@lru_cache(maxsize=256)
def constant(values: tuple, device: torch.device) -> Tensor:
    """Return a (nested) tuple as a float32 tensor that is uploaded once and shared: do not change.

    The copy is complete on return, so that work on any stream may use it.
    """
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32).to(device)
