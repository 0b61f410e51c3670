"""Convolutions whose weight gradients are computed beside the rest of the backward pass.

With small batches the kernels of a backward pass fill a part of a GPU only. The gradient of a
weight is needed by nothing before the pass ends, so it is computed on a second stream while the
gradients of the images go on. At the end of the pass the first stream waits for the second.

Gradients that something reads during the pass must wait before (`wait_for_weight_gradients`):
autograd itself, where it adds two of them, is waited for here; leave weights with hooks, and
DistributedDataParallel, without this.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from utils.streams import stream_for

LARGEST_BATCH = 64  # images; larger ones fill a GPU

# Of each device the weight and the inputs of every gradient on the second stream. To hold them
# keeps their memory from being used anew, and autograd from adding to them in place.
_under_way: dict[torch.device, list[tuple[Tensor, ...]]] = {}


class OverlappedConv2d(nn.Conv2d):
    """`nn.Conv2d` without a bias: the same parameter and key, and the same arithmetic."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        if not is_overlapped(x) or not torch.is_grad_enabled():
            return super().forward(x)
        settings = (self.stride, self.padding, self.dilation, self.groups)
        return cast(Tensor, _Convolution.apply(x, self.weight, settings))


def overlap_weight_gradients(model: nn.Module) -> int:
    """Make the convolutions inside a model overlapped, in place; returns how many.

    Those are `nn.Conv2d` without a bias, zeros for padding and no hooks, but no subclasses; and
    layers that have an attribute `overlap` to turn on. Each keeps its parameter, so state_dict,
    optimizers and checkpoints stay valid.
    """
    found = [each for each in model.modules() if _fits(each)]
    for module in found:
        module.__class__ = OverlappedConv2d
    switched = [each for each in model.modules() if hasattr(each, "overlap")]
    for module in switched:
        cast(Any, module).overlap = True
    return len(found) + len(switched)


def is_overlapped(x: Tensor) -> bool:
    """Whether the weight gradients of a layer that reads x (B, ...) go beside the others."""
    return x.is_cuda and len(x) <= LARGEST_BATCH and not torch.compiler.is_compiling()


def beside(gradient: Callable[[], Tensor], weight: Tensor, *inputs: Tensor) -> Tensor:
    """Compute a weight's gradient from `inputs` on the second stream; call it in a backward pass.

    Where autograd adds it at once to another (a weight used twice, or a `.grad` that is there), it
    is computed on the first stream, after those on the second.
    """
    device = weight.device
    known = _under_way.get(device, [])
    used_twice = any(each[0].data_ptr() == weight.data_ptr() for each in known)
    if used_twice or (weight.is_leaf and weight.grad is not None):
        wait_for_weight_gradients()
        return gradient()
    _under_way.setdefault(device, []).append((weight, *inputs))
    cast(Any, torch.autograd.Variable)._execution_engine.queue_callback(_finish)
    stream = stream_for(device, "second")
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        result = gradient()
        # In the weight's dtype and strides, or autograd would copy it on the first stream.
        same = (result.dtype, result.stride()) == (weight.dtype, weight.stride())
        return result if same else torch.empty_like(weight).copy_(result)


def run_beside(layer: nn.Module, x: Tensor) -> Tensor:
    """Run a layer on the second stream, and so its backward pass; `wait_for` what it returns."""
    stream = stream_for(x.device, "second")
    stream.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(stream):
        return cast(Tensor, layer(x))


def wait_for(x: Tensor) -> Tensor:
    """Let the current stream wait for what `run_beside` returned, and return that."""
    stream = torch.cuda.current_stream(x.device)
    stream.wait_stream(stream_for(x.device, "second"))
    x.record_stream(stream)
    return x


def wait_for_weight_gradients() -> None:
    """Let the current streams wait for all weight gradients that are under way."""
    for device in _under_way:
        torch.cuda.current_stream(device).wait_stream(stream_for(device, "second"))


def _finish() -> None:
    """At the end of a backward pass, on the streams that it was called on."""
    wait_for_weight_gradients()
    _under_way.clear()


class _Convolution(torch.autograd.Function):
    """A convolution under autocast, as autocast computes it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, settings: tuple[Any, ...]) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, used = x.to(dtype), weight.to(dtype)
        else:
            used = weight
        ctx.save_for_backward(x, used, weight)
        ctx.settings = settings
        return F.conv2d(x, used, None, *settings)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, used, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.settings

        def part(*mask: bool) -> Any:
            return torch.ops.aten.convolution_backward(
                dy, x, used, None, stride, padding, dilation, False, (0, 0), groups, mask
            )

        dx = dweight = None
        if ctx.needs_input_grad[1]:
            dweight = beside(lambda: part(False, True, False)[1], weight, x, dy)
        if ctx.needs_input_grad[0]:
            dx = part(True, False, False)[0]
        return dx, dweight, None


def _fits(module: nn.Module) -> bool:
    return (
        type(module) is nn.Conv2d
        and module.bias is None
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and not (module._forward_pre_hooks or module._backward_hooks)
    )
