"""Layers' parameters rounded to autocast's dtype all at once, and their gradients widened so.

Autocast does both with two kernels a parameter, most of them too small to be more than a launch.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from models.overlapped_conv import OverlappedConv2d, wait_for_weight_gradients

KINDS = (nn.Conv2d, OverlappedConv2d, nn.Linear)


class RoundedWeights(nn.Module):
    """A network that computes, in autocast to `dtype`, what it would without this.

    The trainable parameters of `nn.Conv2d`, `OverlappedConv2d` and `nn.Linear`, but no other
    subclasses, are given to it rounded; all else is left to autocast. Parameters stay the network's
    own and keep their dtype, and so have their gradients, which all come at the end of the backward
    pass.

    Args:
        part: what of the network runs in autocast; other layers' parameters are left.
    """

    def __init__(self, network: nn.Module, part: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.inside = frozenset(each for each in part.modules() if type(each) in KINDS)
        self.dtype = dtype

    def forward(self, *inputs: Any) -> Any:
        parameters = {
            f"{prefix}.{name}": parameter
            for prefix, module in self.network.named_modules()
            if module in self.inside
            for name, parameter in module.named_parameters(recurse=False)
            if parameter.requires_grad
        }
        rounded = _Round.apply(self.dtype, *parameters.values()) if parameters else ()
        given = dict(zip(parameters, rounded, strict=True))
        # Not tied: a layer of another kind that shares a parameter rounds it itself.
        return functional_call(self.network, given, inputs, tie_weights=False)


class _Round(torch.autograd.Function):
    """Many tensors in another dtype, and their gradients in the tensors' own."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*parameters)
        rounded = [torch.empty_like(each, dtype=dtype) for each in parameters]
        torch._foreach_copy_(rounded, list(parameters))
        return tuple(rounded)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        wait_for_weight_gradients()
        known = [(p, g) for p, g in zip(ctx.saved_tensors, gradients, strict=True) if g is not None]
        wide = [torch.empty_like(p) for p, _ in known]
        # One kernel takes them all if each lies in memory as its parameter does.
        alike = [
            g if g.stride() == p.stride() else torch.empty_like(p, dtype=g.dtype).copy_(g)
            for p, g in known
        ]
        if known:
            torch._foreach_copy_(wide, alike)
        remaining = iter(wide)
        return None, *(None if each is None else next(remaining) for each in gradients)
