"""The fused batch normalisation's forward and backward pass: which kernels run, in what grids.

An image batch (B, C, H, W) in channels_last is N = B·H·W rows of C values that lie side by side; a
program goes through a stripe of rows and a block of channels:

- training forward: statistics of each stripe; all stripes combined; normalise and activate.
- backward: two sums of each stripe; all stripes combined; gradient of the input.
- evaluation: normalise and activate, one kernel.

Where there are few rows, one program holds all of them for a few channels, and the training forward
pass and the backward pass are one kernel each: they would be mostly launches.

Nothing is read back by the host, so a CUDA graph can record it all.
"""

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models import batch_norm_kernels as kernels
from utils.optional_triton import channel_groups, early_launch, triton

Activation = Literal["relu", "relu6"]

TILE = 4096  # values that a program holds at a time
WARPS = 8
STAGES = 3  # loads of a loop that are on their way at a time
REDUCE_PROGRAMS = 528  # of a kernel that sums: 4 for each multiprocessor of an H200
MAP_PROGRAMS = 2112  # of a kernel that writes as much as it reads
BLOCK_STRIPES = 256  # stripes that are combined at a time,
COMBINED_CHANNELS = 16  # for so many channels a program
WHOLE = ((1024, 8), (4096, 4))  # rows at most, and channels of a program that holds all rows
WHOLE_VALUES = 32  # of a tensor that a thread of it holds
BLOCK_COST = 8  # a block of channels costs as much as its width and so many channels more


@dataclass(frozen=True)
class BatchNormOptions:
    """What a layer's kernels need to know besides tensors."""

    training: bool
    momentum: float
    eps: float
    activation: Activation | None


class BatchNormFunction(torch.autograd.Function):
    """The kernels, forward and backward, of one layer."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        num_batches_tracked: Tensor,
        shortcut: Tensor | None,
        options: BatchNormOptions,
    ) -> Tensor:
        mean, variance = running_mean, running_var
        running = (running_mean, running_var, num_batches_tracked)
        with torch.cuda.device_of(x):
            if options.training and _whole_plan(x):
                z, mean, variance = _normalised(x, shortcut, weight, bias, running, options)
            else:
                if options.training:
                    mean, variance = _batch_statistics(x, running, options.momentum)
                z = torch.empty_like(x)
                grid, plan = _plan(x, MAP_PROGRAMS)
                kernels.transform[grid](
                    x, _place_of(shortcut, x), z, mean, variance, weight, bias, options.eps,
                    activation=options.activation, added=shortcut is not None, **plan,
                )  # fmt: skip
        if options.training:  # autograd cannot see what a kernel writes
            torch.autograd.graph.increment_version(running)
        ctx.save_for_backward(x, mean, variance, weight, bias, None if shortcut is None else z)
        ctx.options = options
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, variance, weight, bias, z = ctx.saved_tensors
        options, activation = ctx.options, ctx.options.activation
        layer = (mean, variance, weight, bias, options.eps)
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx = dweight = dbias = dshortcut = None
        with torch.cuda.device_of(x):
            if options.training and _whole_plan(x):
                dshortcut, *others = _gradients(x, dy, z, layer, activation)
                return *others, None, None, None, dshortcut, None
            if options.training or any(ctx.needs_input_grad[1:3]):
                dshortcut, dweight, dbias = _parameter_gradients(x, dy, z, layer, activation)
            elif z is not None:
                dshortcut = _before_activation(dy, z, activation)
            if dshortcut is not None:
                dy, activation = dshortcut, None
            if ctx.needs_input_grad[0]:
                dx = torch.empty_like(x)
                grid, plan = _plan(x, MAP_PROGRAMS)
                sums = (dweight, dbias) if options.training else (mean, mean)  # the latter unread
                kernels.input_gradient[grid](
                    x, dy, dx, *layer, *sums,
                    frozen=not options.training, activation=activation, **plan,
                )  # fmt: skip
        return dx, dweight, dbias, None, None, None, dshortcut, None


def _place_of(tensor: Tensor | None, x: Tensor) -> Tensor:
    """A pointer for a kernel, which does not use it where there is no shortcut."""
    return x if tensor is None else tensor


def _before_activation(dy: Tensor, z: Tensor, activation: Activation | None) -> Tensor:
    """The gradient of the activation's input, from its output."""
    if activation is None:
        return dy
    if activation == "relu":
        return torch.ops.aten.threshold_backward(dy, z, 0)
    return torch.ops.aten.hardtanh_backward(dy, z, 0, 6)


def _plan(x: Tensor, programs: int) -> tuple[tuple[int], dict[str, Any]]:
    """Grid and sizes of a kernel that goes through x (B, C, H, W) in about `programs` stripes."""
    channels = x.shape[1]
    rows = x.numel() // channels
    block_channels = min(
        (16, 32, 64, 128),
        key=lambda width: triton.cdiv(channels, width) * (width + BLOCK_COST),
    )
    blocks = triton.cdiv(channels, block_channels)
    block_rows = TILE // block_channels
    most = min(programs // blocks, triton.cdiv(rows, block_rows))
    stripe_rows = triton.cdiv(triton.cdiv(rows, max(most, 1)), block_rows) * block_rows
    sizes = {
        "rows": rows,
        "stripe_rows": stripe_rows,
        "block_rows": block_rows,
        "block_channels": block_channels,
        "stages": STAGES,
        "num_warps": WARPS,
        **channel_groups(channels),
        **early_launch(x.device),
    }
    return (blocks * triton.cdiv(rows, stripe_rows),), sizes


def _partials(x: Tensor, plan: dict[str, Any]) -> tuple[Tensor, tuple[int], dict[str, Any]]:
    """Room for two numbers of each stripe and channel; grid and sizes of what combines them."""
    stripes = triton.cdiv(plan["rows"], plan["stripe_rows"])
    partials = torch.empty((stripes, 2, x.shape[1]), dtype=torch.float32, device=x.device)
    sizes = {key: plan[key] for key in ("rows", "groups", "stripe_rows", "vector", "num_warps")}
    sizes |= {
        "stripes": stripes,
        "block_stripes": BLOCK_STRIPES,
        "block_channels": COMBINED_CHANNELS,
        **early_launch(x.device),
    }
    return partials, (triton.cdiv(x.shape[1], COMBINED_CHANNELS),), sizes


def _batch_statistics(
    x: Tensor, running: tuple[Tensor, ...], momentum: float
) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) of a batch; the running ones are brought up to date."""
    grid, plan = _plan(x, REDUCE_PROGRAMS)
    partials, combine_grid, sizes = _partials(x, plan)
    mean = torch.empty_like(running[0])
    variance = torch.empty_like(running[1])
    kernels.partial_statistics[grid](x, partials, **plan)
    kernels.combine_statistics[combine_grid](partials, mean, variance, *running, momentum, **sizes)
    return mean, variance


def _parameter_gradients(
    x: Tensor, dy: Tensor, z: Tensor | None, layer: tuple[Any, ...], activation: Activation | None
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of the shortcut, whose layer has z for its output, and (C,) of weight and bias."""
    _, variance, weight, bias, eps = layer
    grid, plan = _plan(x, REDUCE_PROGRAMS)
    partials, combine_grid, sizes = _partials(x, plan)
    dshortcut = None if z is None else torch.empty_like(dy)
    dweight, dbias = torch.empty_like(weight), torch.empty_like(bias)
    kernels.partial_gradients[grid](
        x, dy, _place_of(z, x), _place_of(dshortcut, x), partials, *layer,
        activation=activation, added=z is not None, **plan,
    )  # fmt: skip
    del sizes["rows"], sizes["stripe_rows"]
    kernels.combine_gradients[combine_grid](partials, dweight, dbias, variance, eps, **sizes)
    return dshortcut, dweight, dbias


def _whole_plan(x: Tensor) -> tuple[tuple[int], dict[str, Any]] | None:
    """Grid and sizes of a kernel whose programs hold all rows; None if those are too many."""
    channels = x.shape[1]
    rows = x.numel() // channels
    fitting = [each for each in WHOLE if rows <= each[0]]
    if not fitting:
        return None
    block_rows, block_channels = fitting[0]
    sizes = {
        "rows": rows,
        "block_rows": block_rows,
        "block_channels": block_channels,
        "num_warps": block_rows * block_channels // WHOLE_VALUES // 32,
        **channel_groups(channels),
        **early_launch(x.device),
    }
    return (triton.cdiv(channels, block_channels),), sizes


def _normalised(
    x: Tensor,
    shortcut: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    running: tuple[Tensor, ...],
    options: BatchNormOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, mean and biased variance of a batch of few rows, in one kernel."""
    grid, plan = cast(Any, _whole_plan(x))
    z, mean, variance = (torch.empty_like(each) for each in (x, *running[:2]))
    kernels.normalise[grid](
        x, _place_of(shortcut, x), z, mean, variance, *running, weight, bias, options.momentum,
        options.eps, activation=options.activation, added=shortcut is not None, **plan,
    )  # fmt: skip
    return z, mean, variance


def _gradients(
    x: Tensor, dy: Tensor, z: Tensor | None, layer: tuple[Any, ...], activation: Activation | None
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """Gradients of shortcut, input, weight and bias for a batch of few rows, in one kernel."""
    grid, plan = cast(Any, _whole_plan(x))
    dshortcut = None if z is None else torch.empty_like(dy)
    dx, dweight, dbias = (torch.empty_like(each) for each in (x, *layer[2:4]))
    kernels.all_gradients[grid](
        x, dy, _place_of(z, x), _place_of(dshortcut, x), dx, dweight, dbias, *layer,
        activation=activation, added=z is not None, **plan,
    )  # fmt: skip
    return dshortcut, dx, dweight, dbias
