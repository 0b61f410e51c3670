"""Steps that are left out: those whose loss or gradient is NaN or infinite."""

from typing import Any

import torch
from torch import Tensor, nn

from utils import distributed


class BadSteps:
    """Finds such steps and undoes what their forward pass did to buffers, as batch statistics.

    Each step waits for the device to say whether it is one: only who asks for it pays.
    """

    def __init__(self, objective: nn.Module) -> None:
        self.parameters = [each for each in objective.parameters() if each.requires_grad]
        self.buffers = list(objective.buffers())
        self.before = [buffer.clone() for buffer in self.buffers]

    def remember(self) -> None:
        """Before a step: keep the buffers."""
        _copy(self.before, self.buffers)

    def is_bad(self, losses: dict[str, Tensor]) -> bool:
        """After the backward pass: whether any process's losses, or the gradient, are not finite.

        If so the buffers are as before.
        """
        total = torch.stack([loss.detach().float() for loss in losses.values()]).sum()
        gradients = [each.grad for each in self.parameters if each.grad is not None]
        norms: Any = torch._foreach_norm(gradients)
        # NaN and Inf outlive a sum, and a product with 0 makes both NaN.
        sign = 0 * (total + torch.stack([norm.float() for norm in norms]).sum())
        bad = bool(distributed.sum_over_processes(sign).isnan())
        if bad:
            _copy(self.buffers, self.before)
        return bad


def _copy(to: list[Tensor], of: list[Tensor]) -> None:
    with torch.no_grad():
        for one, other in zip(to, of, strict=True):
            one.copy_(other)
