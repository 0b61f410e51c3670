"""Batch normalisation and the activation after it as few kernels, for channels_last images.

In training, PyTorch's own kernels reach less than half of a GPU's bandwidth, and the activation
reads and writes everything once more. Here an image batch (B, C, H, W) in channels_last is
N = B·H·W rows of C values that lie side by side; a program goes through a stripe of rows and a
block of channels:

- training forward: statistics of each stripe; all stripes combined; normalise and activate.
- backward: two sums of each stripe; all stripes combined; gradient of the input.
- evaluation: normalise and activate, one kernel.

Where there are few rows, one program holds all of them for a few channels, and the training forward
pass and the backward pass are one kernel each: they would be mostly launches.

Sums are added up in a fixed order (no atomics), so results are the same in every run; nothing is
read back by the host, so a CUDA graph can record it all. Whatever the kernels do not cover (CPU,
contiguous NCHW, torch.compile, ...) is done by PyTorch's operations.
"""

from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

try:
    import triton
    import triton.language as tl
except ImportError:  # comes with torch's CUDA builds only
    triton, tl = cast(Any, None), cast(Any, SimpleNamespace(constexpr=None))

Activation = Literal["relu", "relu6"]

DEVICE = "cuda"
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
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


class FusedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with the activation that follows: the same parameters, buffers and keys.

    Maps (B, C, H, W) to the same shape, dtype and memory format. Statistics and arithmetic are
    float32 (Ioffe & Szegedy, Batch Normalization, 2015).

    Args:
        activation: 'relu', 'relu6', or None for none. The others are `nn.BatchNorm2d`'s.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        activation: Activation | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        if self._kernels_cover(x):
            return cast(Tensor, _Function.apply(x, *self._tensors(), _Options.of(self)))
        z = super().forward(x)
        if self.activation is None:
            return z
        activate = F.relu if self.activation == "relu" else F.relu6
        return activate(z, inplace=True)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation}"

    def _tensors(self) -> tuple[Tensor | None, ...]:
        buffers = (self.running_mean, self.running_var, self.num_batches_tracked)
        return (self.weight, self.bias, *buffers)

    def _kernels_cover(self, x: Tensor) -> bool:
        if triton is None or x.device.type != DEVICE or torch.compiler.is_compiling():
            return False
        tensors = self._tensors()
        return (
            x.dim() == 4
            and x.dtype in DTYPES
            and x.shape[1] == self.num_features
            and x.numel() > (x.shape[1] if self.training else 0)  # one row has no variance
            and x.is_contiguous(memory_format=torch.channels_last)
            and self.momentum is not None
            and all(each is not None and each.is_contiguous() for each in tensors)
            and all(cast(Tensor, each).dtype == torch.float32 for each in tensors[:4])
        )


def fuse_batch_norms(model: nn.Module) -> int:
    """Replace the batch normalisations inside a model by fused ones, in place.

    Replaced are `nn.BatchNorm2d` and timm's `BatchNormAct2d` with ReLU, ReLU6 or no activation, but
    no subclasses (`SyncBatchNorm`), none that carry hooks, and not the model itself. Each keeps the
    very same parameter and buffer objects, so state_dict, optimizers and checkpoints stay valid. A
    ReLU or ReLU6 right after a batch normalisation in an `nn.Sequential` is fused too; an
    `nn.Identity` takes its place.

    Returns:
        How many were replaced.
    """
    following = _activations_in_sequentials(model)
    fused: dict[nn.Module, FusedBatchNorm2d] = {}
    for module in model.modules():
        if module is not model and isinstance(module, nn.BatchNorm2d) and _replaceable(module):
            activation = following.get(module) or _own_activation(module)
            fused[module] = _fused_like(module, activation)
    for parent in list(model.modules()):
        previous = None
        for name, child in list(parent._modules.items()):
            if child in fused:
                setattr(parent, name, fused[child])
            elif previous in following and previous in fused and _is_sequential(parent):
                setattr(parent, name, nn.Identity())
            previous = child
    return len(fused)


ACTIVATIONS: dict[type[nn.Module], Activation | None] = {
    nn.Identity: None,
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
}


def _replaceable(module: nn.BatchNorm2d) -> bool:
    if _has_hooks(module):
        return False
    kind = type(module)
    if kind is nn.BatchNorm2d:
        return True
    if kind.__name__ != "BatchNormAct2d" or not kind.__module__.startswith("timm."):
        return False
    others = (getattr(module, "drop", None), getattr(module, "aa", None))
    return (
        type(module.act) in ACTIVATIONS
        and not _has_hooks(cast(nn.Module, module.act))
        and all(each is None or type(each) is nn.Identity for each in others)
    )


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def _own_activation(module: nn.Module) -> Activation | None:
    return ACTIVATIONS[type(cast(nn.Module, getattr(module, "act", nn.Identity())))]


def _is_sequential(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _activations_in_sequentials(model: nn.Module) -> dict[nn.Module, Activation]:
    """The plain batch normalisations that have their activation right after them.

    One that sits in several places is left out: the activation may follow in one of them only.
    """
    places = [child for parent in model.modules() for child in parent._modules.values()]
    following: dict[nn.Module, Activation] = {}
    for parent in filter(_is_sequential, model.modules()):
        for module, after in pairwise(
            each for each in parent._modules.values() if each is not None
        ):
            activation = ACTIVATIONS.get(type(after))
            single = sum(place is module for place in places) == 1
            plain = type(module) is nn.BatchNorm2d and not _has_hooks(after)
            if activation is not None and plain and single:
                following[module] = activation
    return following


def _fused_like(module: nn.BatchNorm2d, activation: Activation | None) -> FusedBatchNorm2d:
    fused = FusedBatchNorm2d(
        module.num_features,
        module.eps,
        module.momentum,
        module.affine,
        module.track_running_stats,
        activation,
        device="meta",  # no memory: its tensors are the module's
    )
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(fused, name, getattr(module, name))
    return fused.train(module.training)


@dataclass(frozen=True)
class _Options:
    """What a layer's kernels need to know besides tensors."""

    training: bool
    momentum: float
    eps: float
    activation: Activation | None

    @classmethod
    def of(cls, layer: FusedBatchNorm2d) -> "_Options":
        momentum = float(cast(float, layer.momentum))
        return cls(layer.training, momentum, float(layer.eps), layer.activation)


class _Function(torch.autograd.Function):
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
        options: _Options,
    ) -> Tensor:
        mean, variance = running_mean, running_var
        running = (running_mean, running_var, num_batches_tracked)
        with torch.cuda.device_of(x):
            if options.training and _whole_plan(x):
                z, mean, variance = _normalised(x, weight, bias, running, options)
            else:
                if options.training:
                    mean, variance = _batch_statistics(x, running, options.momentum)
                z = torch.empty_like(x)
                grid, plan = _plan(x, MAP_PROGRAMS)
                _transform[grid](
                    x, z, mean, variance, weight, bias, options.eps,
                    activation=options.activation, **plan,
                )  # fmt: skip
        if options.training:  # autograd cannot see what a kernel writes
            torch.autograd.graph.increment_version(running)
        ctx.save_for_backward(x, mean, variance, weight, bias)
        ctx.options = options
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, variance, weight, bias = ctx.saved_tensors
        options = ctx.options
        layer = (mean, variance, weight, bias, options.eps)
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx = dweight = dbias = None
        with torch.cuda.device_of(x):
            if options.training and _whole_plan(x):
                return *_gradients(x, dy, layer, options.activation), *[None] * 4
            if options.training or any(ctx.needs_input_grad[1:3]):
                dweight, dbias = _parameter_gradients(x, dy, layer, options.activation)
            if ctx.needs_input_grad[0]:
                dx = torch.empty_like(x)
                grid, plan = _plan(x, MAP_PROGRAMS)
                sums = (dweight, dbias) if options.training else (mean, mean)  # the latter unread
                _input_gradient[grid](
                    x, dy, dx, *layer, *sums,
                    frozen=not options.training, activation=options.activation, **plan,
                )  # fmt: skip
        return dx, dweight, dbias, None, None, None, None


def _plan(x: Tensor, programs: int) -> tuple[tuple[int], dict[str, Any]]:
    """Grid and sizes of a kernel that goes through x (B, C, H, W) in about `programs` stripes."""
    channels = x.shape[1]
    rows = x.numel() // channels
    vector = 8 if channels % 8 == 0 else 1
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
        "groups": channels // vector,
        "stripe_rows": stripe_rows,
        "vector": vector,
        "block_rows": block_rows,
        "block_channels": block_channels,
        "stages": STAGES,
        "num_warps": WARPS,
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
    _partial_statistics[grid](x, partials, **plan)
    _combine_statistics[combine_grid](partials, mean, variance, *running, momentum, **sizes)
    return mean, variance


def _parameter_gradients(
    x: Tensor, dy: Tensor, layer: tuple[Any, ...], activation: Activation | None
) -> tuple[Tensor, Tensor]:
    """Gradients (C,) of weight and bias."""
    _, variance, weight, bias, eps = layer
    grid, plan = _plan(x, REDUCE_PROGRAMS)
    partials, combine_grid, sizes = _partials(x, plan)
    dweight, dbias = torch.empty_like(weight), torch.empty_like(bias)
    _partial_gradients[grid](x, dy, partials, *layer, activation=activation, **plan)
    del sizes["rows"], sizes["stripe_rows"]
    _combine_gradients[combine_grid](partials, dweight, dbias, variance, eps, **sizes)
    return dweight, dbias


def _whole_plan(x: Tensor) -> tuple[tuple[int], dict[str, Any]] | None:
    """Grid and sizes of a kernel whose programs hold all rows; None if those are too many."""
    channels = x.shape[1]
    rows = x.numel() // channels
    fitting = [each for each in WHOLE if rows <= each[0]]
    if not fitting:
        return None
    block_rows, block_channels = fitting[0]
    vector = 8 if channels % 8 == 0 else 1
    sizes = {
        "rows": rows,
        "groups": channels // vector,
        "vector": vector,
        "block_rows": block_rows,
        "block_channels": block_channels,
        "num_warps": block_rows * block_channels // WHOLE_VALUES // 32,
    }
    return (triton.cdiv(channels, block_channels),), sizes


def _normalised(
    x: Tensor, weight: Tensor, bias: Tensor, running: tuple[Tensor, ...], options: _Options
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, mean and biased variance of a batch of few rows, in one kernel."""
    grid, plan = cast(Any, _whole_plan(x))
    z, mean, variance = (torch.empty_like(each) for each in (x, *running[:2]))
    _normalise[grid](
        x, z, mean, variance, *running, weight, bias, options.momentum, options.eps,
        activation=options.activation, **plan,
    )  # fmt: skip
    return z, mean, variance


def _gradients(
    x: Tensor, dy: Tensor, layer: tuple[Any, ...], activation: Activation | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input, weight and bias for a batch of few rows, in one kernel."""
    grid, plan = cast(Any, _whole_plan(x))
    dx, dweight, dbias = (torch.empty_like(each) for each in (x, *layer[2:4]))
    _all_gradients[grid](x, dy, dx, dweight, dbias, *layer, activation=activation, **plan)
    return dx, dweight, dbias


def _kernel(function: Any) -> Any:
    """A Triton kernel that is compiled once for all sizes; without Triton it is never called."""
    sizes = ("rows", "groups", "stripe_rows", "stripes")
    return triton.jit(function, do_not_specialize=sizes) if triton else function


# A kernel's channels are groups * vector, so that the compiler knows that rows start at multiples
# of `vector` and reads that many values at once. Row offsets are int64.


@_kernel
def _place(channels, stripe_rows, block_channels: tl.constexpr):  # type: ignore[no-untyped-def]
    """A program's first row and its channels. Neighbours in the grid share rows."""
    blocks = tl.cdiv(channels, block_channels)
    program = tl.program_id(0)
    first = (program // blocks).to(tl.int64) * stripe_rows
    return first, (program % blocks) * block_channels + tl.arange(0, block_channels)


@_kernel
def _masked(dy, z, activation: tl.constexpr):  # type: ignore[no-untyped-def]
    """The gradient before the activation; NaN passes, as in PyTorch."""
    if activation == "relu":
        dy = tl.where(z <= 0, 0.0, dy)
    if activation == "relu6":
        dy = tl.where((z <= 0) | (z >= 6), 0.0, dy)
    return dy


@_kernel
def _activated(value, activation: tl.constexpr):  # type: ignore[no-untyped-def]
    """The activation; NaN stays, as in PyTorch."""
    if activation is not None:
        value = tl.where(value < 0, 0.0, value)
    if activation == "relu6":
        value = tl.where(value > 6, 6.0, value)
    return value


@_kernel
def _keep_running(  # type: ignore[no-untyped-def]
    running_mean, running_var, num_batches_tracked, average, moment, number, momentum, column, used
):
    """The running statistics, brought up to date with a batch's mean and squared deviations."""
    old_mean = tl.load(running_mean + column, mask=used, other=0.0)
    old_var = tl.load(running_var + column, mask=used, other=0.0)
    unbiased = moment / (number - 1)
    tl.store(running_mean + column, (1 - momentum) * old_mean + momentum * average, mask=used)
    tl.store(running_var + column, (1 - momentum) * old_var + momentum * unbiased, mask=used)
    if tl.program_id(0) == 0:
        tl.store(num_batches_tracked, tl.load(num_batches_tracked) + 1)


@_kernel
def _partial_statistics(  # type: ignore[no-untyped-def]
    x,
    partials,
    rows,
    groups,
    stripe_rows,
    vector: tl.constexpr,
    block_rows: tl.constexpr,
    block_channels: tl.constexpr,
    stages: tl.constexpr,
):
    """Mean and sum of squared deviations of each stripe, into partials (stripes, 2, C).

    What is summed is x less the stripe's first row: a large mean does not cancel the variance.
    """
    channels = groups * vector
    first, column = _place(channels, stripe_rows, block_channels)
    used = column < channels
    lane = tl.arange(0, block_rows)
    offsets = lane[:, None] * channels + column[None, :]
    shift = tl.load(x + first * channels + column, mask=used, other=0.0).to(tl.float32)
    total = tl.zeros([block_rows, block_channels], dtype=tl.float32)
    squares = tl.zeros([block_rows, block_channels], dtype=tl.float32)
    for step in tl.range(0, stripe_rows, block_rows, num_stages=stages):
        row = first + step
        inside = (lane < rows - row)[:, None] & used[None, :]
        value = tl.load(x + row * channels + offsets, mask=inside, other=0.0).to(tl.float32)
        deviation = tl.where(inside, value - shift[None, :], 0.0)
        total += deviation
        squares += deviation * deviation
    count = tl.minimum(rows - first, stripe_rows).to(tl.float32)
    summed = tl.sum(total, axis=0)
    moment = tl.sum(squares, axis=0) - summed * summed / count
    place = partials + first // stripe_rows * 2 * channels + column
    tl.store(place, shift + summed / count, mask=used)
    tl.store(place + channels, moment, mask=used)


@_kernel
def _combine_statistics(  # type: ignore[no-untyped-def]
    partials,
    mean,
    variance,
    running_mean,
    running_var,
    num_batches_tracked,
    momentum,
    rows,
    groups,
    stripe_rows,
    stripes,
    vector: tl.constexpr,
    block_stripes: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Statistics of all rows from those of the stripes, and the running ones.

    For stripes of n_i rows with means m_i and sums of squared deviations S_i:
    S = Σ S_i + Σ n_i (m_i − m)², m = Σ n_i m_i / N (Chan, Golub & LeVeque, Updating Formulae and a
    Pairwise Algorithm for Computing Sample Variances, 1979), taken relative to m_0.
    """
    channels = groups * vector
    column = tl.program_id(0) * block_channels + tl.arange(0, block_channels)
    used = column < channels
    shift = tl.load(partials + column, mask=used, other=0.0)
    total = tl.zeros([block_stripes, block_channels], dtype=tl.float32)
    squares = tl.zeros([block_stripes, block_channels], dtype=tl.float32)
    for step in range(0, stripes, block_stripes):
        stripe = step + tl.arange(0, block_stripes)
        inside = (stripe < stripes)[:, None] & used[None, :]
        place = partials + stripe[:, None] * 2 * channels + column[None, :]
        stripe_mean = tl.load(place, mask=inside, other=0.0)
        moment = tl.load(place + channels, mask=inside, other=0.0)
        count = tl.minimum(rows - stripe.to(tl.int64) * stripe_rows, stripe_rows).to(tl.float32)
        deviation = tl.where(inside, stripe_mean - shift[None, :], 0.0)
        total += count[:, None] * deviation
        squares += moment + count[:, None] * deviation * deviation
    number = rows.to(tl.float32)
    summed = tl.sum(total, axis=0)
    moment = tl.maximum(tl.sum(squares, axis=0) - summed * summed / number, 0.0)
    average = shift + summed / number
    tl.store(mean + column, average, mask=used)
    tl.store(variance + column, moment / number, mask=used)
    _keep_running(
        running_mean, running_var, num_batches_tracked, average, moment, number, momentum, column,
        used,
    )  # fmt: skip


@_kernel
def _transform(  # type: ignore[no-untyped-def]
    x,
    z,
    mean,
    variance,
    weight,
    bias,
    eps,
    rows,
    groups,
    stripe_rows,
    vector: tl.constexpr,
    activation: tl.constexpr,
    block_rows: tl.constexpr,
    block_channels: tl.constexpr,
    stages: tl.constexpr,
):
    """z = activation((x - mean) / sqrt(variance + eps) * weight + bias)."""
    channels = groups * vector
    first, column = _place(channels, stripe_rows, block_channels)
    used = column < channels
    lane = tl.arange(0, block_rows)
    offsets = lane[:, None] * channels + column[None, :]
    center = tl.load(mean + column, mask=used, other=0.0)
    scale = tl.rsqrt(tl.load(variance + column, mask=used, other=1.0) + eps)
    scale *= tl.load(weight + column, mask=used, other=0.0)
    shift = tl.load(bias + column, mask=used, other=0.0)
    for step in tl.range(0, stripe_rows, block_rows, num_stages=stages):
        row = first + step
        inside = (lane < rows - row)[:, None] & used[None, :]
        value = tl.load(x + row * channels + offsets, mask=inside, other=0.0).to(tl.float32)
        value = (value - center[None, :]) * scale[None, :] + shift[None, :]
        value = _activated(value, activation)
        tl.store(z + row * channels + offsets, value.to(z.dtype.element_ty), mask=inside)


@_kernel
def _partial_gradients(  # type: ignore[no-untyped-def]
    x,
    dy,
    partials,
    mean,
    variance,
    weight,
    bias,
    eps,
    rows,
    groups,
    stripe_rows,
    vector: tl.constexpr,
    activation: tl.constexpr,
    block_rows: tl.constexpr,
    block_channels: tl.constexpr,
    stages: tl.constexpr,
):
    """Σ dz and Σ dz (x - mean) of each stripe, into partials (stripes, 2, C)."""
    channels = groups * vector
    first, column = _place(channels, stripe_rows, block_channels)
    used = column < channels
    lane = tl.arange(0, block_rows)
    offsets = lane[:, None] * channels + column[None, :]
    center = tl.load(mean + column, mask=used, other=0.0)
    scale = tl.rsqrt(tl.load(variance + column, mask=used, other=1.0) + eps)
    scale *= tl.load(weight + column, mask=used, other=0.0)
    shift = tl.load(bias + column, mask=used, other=0.0)
    total = tl.zeros([block_rows, block_channels], dtype=tl.float32)
    products = tl.zeros([block_rows, block_channels], dtype=tl.float32)
    for step in tl.range(0, stripe_rows, block_rows, num_stages=stages):
        row = first + step
        inside = (lane < rows - row)[:, None] & used[None, :]
        value = tl.load(x + row * channels + offsets, mask=inside, other=0.0).to(tl.float32)
        dz = tl.load(dy + row * channels + offsets, mask=inside, other=0.0).to(tl.float32)
        deviation = value - center[None, :]
        # Rounded as the activation's input would be.
        z = (deviation * scale[None, :] + shift[None, :]).to(x.dtype.element_ty).to(tl.float32)
        dz = _masked(dz, z, activation)
        total += dz
        products += dz * deviation
    place = partials + first // stripe_rows * 2 * channels + column
    tl.store(place, tl.sum(total, axis=0), mask=used)
    tl.store(place + channels, tl.sum(products, axis=0), mask=used)


@_kernel
def _combine_gradients(  # type: ignore[no-untyped-def]
    partials,
    dweight,
    dbias,
    variance,
    eps,
    groups,
    stripes,
    vector: tl.constexpr,
    block_stripes: tl.constexpr,
    block_channels: tl.constexpr,
):
    """dbias = Σ dz, dweight = Σ dz x̂, with x̂ = (x - mean) / sqrt(variance + eps)."""
    channels = groups * vector
    column = tl.program_id(0) * block_channels + tl.arange(0, block_channels)
    used = column < channels
    total = tl.zeros([block_stripes, block_channels], dtype=tl.float32)
    products = tl.zeros([block_stripes, block_channels], dtype=tl.float32)
    for step in range(0, stripes, block_stripes):
        stripe = step + tl.arange(0, block_stripes)
        inside = (stripe < stripes)[:, None] & used[None, :]
        place = partials + stripe[:, None] * 2 * channels + column[None, :]
        total += tl.load(place, mask=inside, other=0.0)
        products += tl.load(place + channels, mask=inside, other=0.0)
    rstd = tl.rsqrt(tl.load(variance + column, mask=used, other=1.0) + eps)
    tl.store(dbias + column, tl.sum(total, axis=0), mask=used)
    tl.store(dweight + column, tl.sum(products, axis=0) * rstd, mask=used)


@_kernel
def _input_gradient(  # type: ignore[no-untyped-def]
    x,
    dy,
    dx,
    mean,
    variance,
    weight,
    bias,
    eps,
    dweight,
    dbias,
    rows,
    groups,
    stripe_rows,
    vector: tl.constexpr,
    activation: tl.constexpr,
    frozen: tl.constexpr,
    block_rows: tl.constexpr,
    block_channels: tl.constexpr,
    stages: tl.constexpr,
):
    """dx = weight · rstd · (dz − Σ dz / N − x̂ Σ dz x̂ / N); with frozen statistics no sums."""
    channels = groups * vector
    first, column = _place(channels, stripe_rows, block_channels)
    used = column < channels
    lane = tl.arange(0, block_rows)
    offsets = lane[:, None] * channels + column[None, :]
    center = tl.load(mean + column, mask=used, other=0.0)
    rstd = tl.rsqrt(tl.load(variance + column, mask=used, other=1.0) + eps)
    scale = rstd * tl.load(weight + column, mask=used, other=0.0)
    shift = tl.load(bias + column, mask=used, other=0.0)
    if not frozen:
        number = rows.to(tl.float32)
        mean_dz = tl.load(dbias + column, mask=used, other=0.0) / number
        slope = tl.load(dweight + column, mask=used, other=0.0) * rstd / number
    for step in tl.range(0, stripe_rows, block_rows, num_stages=stages):
        row = first + step
        inside = (lane < rows - row)[:, None] & used[None, :]
        value = tl.load(x + row * channels + offsets, mask=inside, other=0.0).to(tl.float32)
        dz = tl.load(dy + row * channels + offsets, mask=inside, other=0.0).to(tl.float32)
        deviation = value - center[None, :]
        z = (deviation * scale[None, :] + shift[None, :]).to(x.dtype.element_ty).to(tl.float32)
        dz = _masked(dz, z, activation)
        if not frozen:
            dz = dz - mean_dz[None, :] - deviation * slope[None, :]
        dz = dz * scale[None, :]
        tl.store(dx + row * channels + offsets, dz.to(dx.dtype.element_ty), mask=inside)


@_kernel
def _whole_place(  # type: ignore[no-untyped-def]
    rows, channels, block_rows: tl.constexpr, block_channels: tl.constexpr
):
    """A program's channels, the offsets of all rows, and what of either is used."""
    column = tl.program_id(0) * block_channels + tl.arange(0, block_channels)
    lane = tl.arange(0, block_rows)
    used = column < channels
    offsets = lane[:, None] * channels + column[None, :]
    return column, offsets, used, (lane < rows)[:, None] & used[None, :]


@_kernel
def _normalise(  # type: ignore[no-untyped-def]
    x,
    z,
    mean,
    variance,
    running_mean,
    running_var,
    num_batches_tracked,
    weight,
    bias,
    momentum,
    eps,
    rows,
    groups,
    vector: tl.constexpr,
    activation: tl.constexpr,
    block_rows: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Statistics of all rows, the running ones, and z as of `_transform`."""
    column, offsets, used, inside = _whole_place(rows, groups * vector, block_rows, block_channels)
    scale = tl.load(weight + column, mask=used, other=0.0)
    shift = tl.load(bias + column, mask=used, other=0.0)
    value = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
    first = tl.load(x + column, mask=used, other=0.0).to(tl.float32)
    number = rows.to(tl.float32)
    # Less the first row: a large mean does not round away the differences.
    center = first + tl.sum(tl.where(inside, value - first[None, :], 0.0), axis=0) / number
    deviation = tl.where(inside, value - center[None, :], 0.0)
    moment = tl.sum(deviation * deviation, axis=0)
    scale *= tl.rsqrt(moment / number + eps)
    value = _activated(deviation * scale[None, :] + shift[None, :], activation)
    tl.store(z + offsets, value.to(z.dtype.element_ty), mask=inside)
    tl.store(mean + column, center, mask=used)
    tl.store(variance + column, moment / number, mask=used)
    _keep_running(
        running_mean, running_var, num_batches_tracked, center, moment, number, momentum, column,
        used,
    )  # fmt: skip


@_kernel
def _all_gradients(  # type: ignore[no-untyped-def]
    x,
    dy,
    dx,
    dweight,
    dbias,
    mean,
    variance,
    weight,
    bias,
    eps,
    rows,
    groups,
    vector: tl.constexpr,
    activation: tl.constexpr,
    block_rows: tl.constexpr,
    block_channels: tl.constexpr,
):
    """dbias, dweight and dx as of `_combine_gradients` and `_input_gradient`."""
    column, offsets, used, inside = _whole_place(rows, groups * vector, block_rows, block_channels)
    center = tl.load(mean + column, mask=used, other=0.0)
    rstd = tl.rsqrt(tl.load(variance + column, mask=used, other=1.0) + eps)
    scale = rstd * tl.load(weight + column, mask=used, other=0.0)
    shift = tl.load(bias + column, mask=used, other=0.0)
    value = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
    dz = tl.load(dy + offsets, mask=inside, other=0.0).to(tl.float32)
    deviation = value - center[None, :]
    z = (deviation * scale[None, :] + shift[None, :]).to(x.dtype.element_ty).to(tl.float32)
    dz = _masked(dz, z, activation)
    total = tl.sum(dz, axis=0)
    slope = tl.sum(dz * deviation, axis=0) * rstd
    tl.store(dbias + column, total, mask=used)
    tl.store(dweight + column, slope, mask=used)
    number = rows.to(tl.float32)
    dz = dz - (total / number)[None, :] - deviation * (slope * rstd / number)[None, :]
    dz = dz * scale[None, :]
    tl.store(dx + offsets, dz.to(dx.dtype.element_ty), mask=inside)
