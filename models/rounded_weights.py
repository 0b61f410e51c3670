"""Convolutions' weights rounded to autocast's dtype all at once, and their gradients widened so.

Autocast does both with two kernels a layer, most of them too small to be more than a launch.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from models.overlapped_conv import OverlappedConv2d, wait_for_weight_gradients


class RoundedWeights(nn.Module):
    """A network that computes, in autocast to `dtype`, what it would without this.

    The trainable weights of `nn.Conv2d` and `OverlappedConv2d`, but no other subclasses, are given
    to it rounded; all else is left to autocast. Parameters stay the network's own and keep their
    dtype, and so have their gradients, which all come at the end of the backward pass.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype

    def forward(self, *inputs: Any) -> Any:
        weights = {
            f"{name}.weight": module.weight
            for name, module in self.network.named_modules()
            if type(module) in (nn.Conv2d, OverlappedConv2d) and module.weight.requires_grad
        }
        rounded = _Round.apply(self.dtype, *weights.values()) if weights else ()
        given = dict(zip(weights, rounded, strict=True))
        # Not tied: a layer of another kind that shares a weight rounds it itself.
        return functional_call(self.network, given, inputs, tie_weights=False)


class _Round(torch.autograd.Function):
    """Many tensors in another dtype, and their gradients in the tensors' own."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*weights)
        rounded = [torch.empty_like(weight, dtype=dtype) for weight in weights]
        torch._foreach_copy_(rounded, list(weights))
        return tuple(rounded)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        wait_for_weight_gradients()
        known = [(w, g) for w, g in zip(ctx.saved_tensors, gradients, strict=True) if g is not None]
        wide = [torch.empty_like(weight) for weight, _ in known]
        # One kernel takes them all if each lies in memory as its weight does.
        alike = [
            g if g.stride() == w.stride() else torch.empty_like(w, dtype=g.dtype).copy_(g)
            for w, g in known
        ]
        if known:
            torch._foreach_copy_(wide, alike)
        remaining = iter(wide)
        return None, *(None if each is None else next(remaining) for each in gradients)
