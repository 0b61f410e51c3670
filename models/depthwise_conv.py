"""Depthwise 3x3, 5x5 and 7x7 convolutions as few kernels, for channels_last images.

cuDNN's depthwise kernels reach a fifth of a GPU's bandwidth on these layers, and are compiled anew
for every shape in every process; TensorFlow's 'SAME' padding adds a padded copy of the images.
Here padding is a matter of masks, and a kernel is compiled once for all sizes of images.

An image (H, W) is cut into spans: a few columns that lie side by side in one row. A program makes a
block of spans, one under the other, times a block of channels, which lie side by side in memory:

- forward, and the gradient of the input with stride 1 (the same with the taps turned around): what
  a span needs of a row is read once and goes into the sums of all its columns.
- gradient of the input with stride s: the taps are dealt out to the s·s positions of a pixel that
  they can reach, so each is used once a cell of s·s pixels, and nothing is added up in memory.
- gradient of the weight: sums of each stripe of spans, all k·k at a time; all stripes combined.

Sums are float32 and added up in a fixed order (no atomics), so results are the same in every run;
nothing is read back by the host, so a CUDA graph can record it all. Whatever the kernels do not
cover (CPU, contiguous NCHW, torch.compile, ...) is done by PyTorch's operations.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.overlapped_conv import beside, is_overlapped

try:
    import triton
    import triton.language as tl
except ImportError:  # comes with torch's CUDA builds only
    triton, tl = cast(Any, None), cast(Any, SimpleNamespace(constexpr=None))

DEVICE = "cuda"
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
WARPS = 4
BLOCK_CHANNELS = 32
VALUES = 8  # of a column that a thread holds: 16 bytes in half precision
REDUCED_VALUES = {1: 8, 3: 4, 5: 4, 7: 2}  # by kernel size: it holds k·k sums of each
COLUMNS = (4, 7)  # of a span; the one that leaves fewer columns over
REDUCED_COLUMNS = 4  # of a span of the kernel that sums
CELLS = 2  # of s·s pixels, of a span of the gradient with stride s
REDUCE_PROGRAMS = 528  # of the kernel that sums: 4 for each multiprocessor of an H200
COMBINED_STRIPES = 64  # stripes that are combined at a time,
COMBINED_SUMS = 32  # for so many sums a program


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with a filter a channel and no bias: the same parameter and key.

    Maps (B, C, H, W) to (B, C, H', W'). Under autocast the images and the weight count as rounded
    to its dtype, as in `nn.Conv2d`; the gradient of the weight is not rounded on its way.

    Args:
        channels: C.
        kernel_size: k, odd and at most 7.
        stride: 1 or 2.
        padding: rows above and below, columns left and right.
        same: pad as TensorFlow's 'SAME' does, so that H' = ceil(H / stride); `padding` is unread.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: tuple[int, int] = (0, 0),
        same: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        padding = (0, 0) if same else padding
        super().__init__(
            channels,
            channels,
            kernel_size,
            stride,
            padding,
            groups=channels,
            bias=False,
            device=device,
        )
        self.same = same
        self.overlap = False  # its weight's gradient is computed beside the others

    def forward(self, x: Tensor) -> Tensor:
        if self.covers(x):
            size = _Size.of(self, x)
            if size.out_height > 0 and size.out_width > 0:
                overlap = self.overlap and is_overlapped(x)
                return cast(Tensor, _Function.apply(x.to(_dtype(x)), self.weight, size, overlap))
        if not self.same:
            return super().forward(x)
        (top, bottom), (left, right) = self._paddings(x)
        padded = F.pad(x, (left, right, top, bottom))
        return F.conv2d(padded, self.weight, None, self.stride, 0, 1, self.groups)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, same={self.same}"

    def _paddings(self, x: Tensor) -> tuple[tuple[int, int], ...]:
        """Rows above and below, columns left and right."""
        if not self.same:
            return tuple((each, each) for each in cast(tuple[int, int], self.padding))
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        totals = [
            max((-(-length // stride) - 1) * stride + kernel - length, 0) for length in x.shape[-2:]
        ]
        return tuple((total // 2, total - total // 2) for total in totals)

    def covers(self, x: Tensor) -> bool:
        """Whether the kernels take images x; else PyTorch's operations do."""
        if triton is None or x.device.type != DEVICE or torch.compiler.is_compiling():
            return False
        dtypes = (x.dtype, self.weight.dtype)
        return (
            x.dim() == 4
            and x.shape[1] == self.in_channels
            and x.numel() > 0
            and x.is_contiguous(memory_format=torch.channels_last)
            and x.device == self.weight.device
            and self.weight.is_contiguous()
            and _dtype(x) in DTYPES
            and all(each in DTYPES for each in dtypes)
            and (torch.is_autocast_enabled(x.device.type) or dtypes[0] == dtypes[1])
        )


def _dtype(x: Tensor) -> torch.dtype:
    """The dtype that a convolution computes in."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def replace_depthwise_convs(model: nn.Module) -> int:
    """Replace the depthwise convolutions inside a model by `DepthwiseConv2d`, in place.

    Replaced are `nn.Conv2d` and timm's `Conv2dSame` with a filter a channel, no bias, no dilation,
    zeros for padding, a square kernel and stride that the kernels know; but no subclasses, none
    that carry hooks, and not the model itself. Each keeps the very same parameter object, so
    state_dict, optimizers and checkpoints stay valid.

    Returns:
        How many were replaced.
    """
    replaced = {
        module: _depthwise_like(module)
        for module in model.modules()
        if module is not model and isinstance(module, nn.Conv2d) and _replaceable(module)
    }
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child in replaced:
                setattr(parent, name, replaced[child])
    return len(replaced)


def _replaceable(module: nn.Conv2d) -> bool:
    hooked = (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
    kernel, stride = module.kernel_size, module.stride
    return (
        not hooked
        and (type(module) is nn.Conv2d or _is_same(module))
        and module.in_channels == module.out_channels == module.groups > 1
        and module.bias is None
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and kernel[0] == kernel[1]
        and kernel[0] in REDUCED_VALUES
        and stride[0] == stride[1]
        and stride[0] in (1, 2)
    )


def _is_same(module: nn.Conv2d) -> bool:
    kind = type(module)
    return kind.__name__ == "Conv2dSame" and kind.__module__.startswith("timm.")


def _depthwise_like(module: nn.Conv2d) -> DepthwiseConv2d:
    depthwise = DepthwiseConv2d(
        module.in_channels,
        module.kernel_size[0],
        module.stride[0],
        cast(tuple[int, int], module.padding),
        _is_same(module),
        device="meta",  # no memory: its weight is the module's
    )
    depthwise.weight = module.weight
    return depthwise.train(module.training)


@dataclass(frozen=True)
class _Size:
    """The sizes of a convolution of a batch (B, C, H, W)."""

    batch: int
    channels: int
    height: int
    width: int
    out_height: int
    out_width: int
    top: int
    left: int
    kernel: int
    stride: int

    @classmethod
    def of(cls, layer: DepthwiseConv2d, x: Tensor) -> "_Size":
        kernel, stride = layer.kernel_size[0], layer.stride[0]
        paddings = layer._paddings(x)
        out_height, out_width = (
            (length + sum(padding) - kernel) // stride + 1
            for length, padding in zip(x.shape[2:], paddings, strict=True)
        )
        batch, channels, height, width = x.shape
        (top, _), (left, _) = paddings
        sizes = (batch, channels, height, width, out_height, out_width)
        return cls(*sizes, top, left, kernel, stride)

    def turned(self) -> "_Size":
        """Of the convolution of the output's gradient that is the input's, for stride 1."""
        top, left = (self.kernel - 1 - padding for padding in (self.top, self.left))
        sizes = (self.out_height, self.out_width, self.height, self.width)
        return _Size(self.batch, self.channels, *sizes, top, left, self.kernel, 1)

    def arguments(self) -> dict[str, int]:
        """The sizes that the kernels of whole spans take by name."""
        names = ("height", "width", "out_height", "out_width", "top", "left", "kernel", "stride")
        return {name: getattr(self, name) for name in names}


class _Function(torch.autograd.Function):
    """The kernels, forward and backward, of one layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, size: _Size, overlap: bool) -> Tensor:
        with torch.cuda.device_of(x):
            taps = x.new_empty((size.kernel**2, size.channels))
            taps.copy_(weight.detach().flatten(1).t())  # channels side by side, as in images
            y = _convolution(x, taps, size, turned=False)
        ctx.save_for_backward(x, taps, weight)
        ctx.size, ctx.overlap = size, overlap
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, taps, weight = ctx.saved_tensors
        size = ctx.size
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx = dweight = None

        def weight_gradient() -> Tensor:
            return _weight_gradient(x, dy, size, weight.dtype)

        with torch.cuda.device_of(x):
            if ctx.needs_input_grad[1]:
                dweight = (
                    beside(weight_gradient, weight, x, dy) if ctx.overlap else weight_gradient()
                )
            if ctx.needs_input_grad[0]:
                if size.stride == 1:
                    dx = _convolution(dy, taps, size.turned(), turned=True)
                else:
                    dx = _strided_input_gradient(dy, taps, size)
        return dx, dweight, None, None


def _convolution(x: Tensor, taps: Tensor, size: _Size, turned: bool) -> Tensor:
    y = _empty_images(x, size.out_height, size.out_width)
    columns = min(COLUMNS, key=lambda each: triton.cdiv(size.out_width, each) * each)
    spans = size.batch * size.out_height * triton.cdiv(size.out_width, columns)
    grid, plan = _plan(size, spans, columns, VALUES)
    first, step = (taps[-1], -1) if turned else (taps, 1)
    _convolve[grid](x, first, y, tap_step=step, **plan)
    return y


def _strided_input_gradient(dy: Tensor, taps: Tensor, size: _Size) -> Tensor:
    dx = _empty_images(dy, size.height, size.width)
    stride = size.stride
    # Cells of stride x stride pixels, from the one that holds the first pixel behind the padding.
    cell_rows = (size.height - 1 + size.top) // stride - size.top // stride + 1
    cell_columns = (size.width - 1 + size.left) // stride - size.left // stride + 1
    spans = size.batch * cell_rows * triton.cdiv(cell_columns, CELLS)
    grid, plan = _plan(size, spans, CELLS * stride, VALUES)
    cells = {"cell_rows": cell_rows, "cell_columns": cell_columns}
    _deal_out[grid](dy, taps, dx, **cells, **plan)
    return dx


def _weight_gradient(x: Tensor, dy: Tensor, size: _Size, dtype: torch.dtype) -> Tensor:
    """(C, 1, k, k); its memory is the same in either memory format, its strides are an image's."""
    columns = REDUCED_COLUMNS
    spans = size.batch * size.out_height * triton.cdiv(size.out_width, columns)
    (programs,), plan = _plan(size, spans, columns, REDUCED_VALUES[size.kernel])
    blocks = triton.cdiv(size.channels, BLOCK_CHANNELS)
    most = min(max(REDUCE_PROGRAMS // blocks, 1), programs // blocks)
    block_spans = plan["block_spans"]
    stripe_spans = triton.cdiv(triton.cdiv(spans, most), block_spans) * block_spans
    stripes = triton.cdiv(spans, stripe_spans)
    number = size.kernel**2
    partials = x.new_empty((stripes, number, size.channels), dtype=torch.float32)
    _partial_weight_gradient[(blocks * stripes,)](
        x, dy, partials, stripe_spans=stripe_spans, **plan
    )
    shape = (size.channels, 1, size.kernel, size.kernel)
    dweight = torch.empty(shape, dtype=dtype, device=x.device, memory_format=torch.channels_last)
    _combine_weight_gradient[(triton.cdiv(number * size.channels, COMBINED_SUMS),)](
        partials, dweight, size.channels, stripes, number,
        COMBINED_STRIPES, COMBINED_SUMS, num_warps=WARPS,
    )  # fmt: skip
    return dweight


def _empty_images(like: Tensor, height: int, width: int) -> Tensor:
    shape = (*like.shape[:2], height, width)
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def _plan(size: _Size, spans: int, columns: int, values: int) -> tuple[tuple[int], dict[str, Any]]:
    """Grid and sizes of a kernel that goes through all spans, with so many values a thread."""
    vector = 8 if size.channels % 8 == 0 else 1
    block_spans = 32 * WARPS * values // BLOCK_CHANNELS
    sizes = {
        "spans": spans,
        "groups": size.channels // vector,
        "vector": vector,
        "columns": columns,
        "block_spans": block_spans,
        "block_channels": BLOCK_CHANNELS,
        "num_warps": WARPS,
    }
    blocks = triton.cdiv(size.channels, BLOCK_CHANNELS)
    return (blocks * triton.cdiv(spans, block_spans),), sizes | size.arguments()


SIZES = (
    *("spans", "groups", "height", "width", "out_height", "out_width", "top", "left"),
    *("tap_step", "cell_rows", "cell_columns", "stripe_spans", "channels", "stripes"),
)


def _kernel(function: Any) -> Any:
    """A Triton kernel that is compiled once for all sizes; without Triton it is never called."""
    return triton.jit(function, do_not_specialize=SIZES) if triton else function


# A kernel's channels are groups * vector, so that the compiler knows that pixels start at multiples
# of `vector` and reads that many values at once. Offsets of spans are int64; they may point before
# an image, but what lies outside of it is masked.


@_kernel
def _channels(channels, block_channels: tl.constexpr):  # type: ignore[no-untyped-def]
    """A program's channels and which block of spans it has. Neighbours in the grid share spans."""
    blocks = tl.cdiv(channels, block_channels)
    program = tl.program_id(0)
    channel = (program % blocks) * block_channels + tl.arange(0, block_channels)
    return channel, program // blocks


@_kernel
def _unravel(span, rows, spans_a_row):  # type: ignore[no-untyped-def]
    """Image, row, and number in its row of a span; those one under the other are neighbours."""
    rest = span // rows
    return (rest // spans_a_row).to(tl.int64), span % rows, rest % spans_a_row


@_kernel
def _append(values, value):  # type: ignore[no-untyped-def]
    return values + (value,)  # noqa: RUF005


@_kernel
def _tap_row(  # type: ignore[no-untyped-def]
    taps, channel, used, first, step, kernel: tl.constexpr, block_spans: tl.constexpr
):
    """A row's taps, each (block_spans, block_channels): laid out over threads as the images are."""
    row = ()
    for tap in tl.static_range(kernel):
        place = tl.broadcast_to(
            taps + first + tap * step + channel[None, :], [block_spans, channel.shape[0]]
        )
        row = _append(row, tl.load(place, mask=used, other=0.0).to(tl.float32))
    return row


@_kernel
def _zeros(number: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr):  # type: ignore[no-untyped-def]
    sums = ()
    for _ in tl.static_range(number):
        sums = _append(sums, tl.zeros([rows, columns], dtype=tl.float32))
    return sums


@_kernel
def _plus(total, value, factors, index: tl.constexpr, number: tl.constexpr):  # type: ignore[no-untyped-def]
    """The total and the product with one of a number of factors, if there is such a one."""
    if index >= 0 and index < number:
        total += value * factors[index]
    return total


@_kernel
def _convolve(  # type: ignore[no-untyped-def]
    x,
    taps,
    y,
    spans,
    groups,
    height,
    width,
    out_height,
    out_width,
    top,
    left,
    tap_step,
    vector: tl.constexpr,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    columns: tl.constexpr,
    block_spans: tl.constexpr,
    block_channels: tl.constexpr,
):
    """y[r, c] = Σ x[r s − top + i, c s − left + j] taps[i, j]; tap n lies at n · tap_step · C."""
    channels = groups * vector
    channel, block = _channels(channels, block_channels)
    span = block * block_spans + tl.arange(0, block_spans)
    used = (span < spans)[:, None] & (channel < channels)[None, :]
    image, row, place = _unravel(span, out_height, tl.cdiv(out_width, columns))
    first_row = row * stride - top
    first_column = place * (columns * stride) - left
    pixel = (image * height + first_row) * width + first_column
    source = x + pixel[:, None] * channels + channel[None, :]
    sums = _zeros(columns, block_spans, block_channels)
    for i in range(kernel):
        offset = i * kernel * tap_step * channels
        weights = _tap_row(taps, channel, used, offset, tap_step * channels, kernel, block_spans)
        in_row = used & ((first_row + i >= 0) & (first_row + i < height))[:, None]
        for j in tl.static_range((columns - 1) * stride + kernel):
            column = first_column + j
            inside = in_row & ((column >= 0) & (column < width))[:, None]
            value = tl.load(source + (i * width + j) * channels, mask=inside, other=0.0)
            value = value.to(tl.float32)
            grown = ()
            for c in tl.static_range(columns):
                more = _plus(sums[c], value, weights, j - c * stride, kernel)
                grown = _append(grown, more)
            sums = grown
    pixel = (image * out_height + row) * out_width + place * columns
    target = y + pixel[:, None] * channels + channel[None, :]
    for c in tl.static_range(columns):
        inside = used & (place * columns + c < out_width)[:, None]
        tl.store(target + c * channels, sums[c].to(y.dtype.element_ty), mask=inside)


@_kernel
def _deal_out(  # type: ignore[no-untyped-def]
    dy,
    taps,
    dx,
    spans,
    groups,
    height,
    width,
    out_height,
    out_width,
    top,
    left,
    cell_rows,
    cell_columns,
    vector: tl.constexpr,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    columns: tl.constexpr,
    block_spans: tl.constexpr,
    block_channels: tl.constexpr,
):
    """The gradient of the input: pixel s a + r − top of a column gets Σ dy[a − m] taps[r + s m]."""
    channels = groups * vector
    cells: tl.constexpr = columns // stride
    reach: tl.constexpr = (kernel - 1) // stride  # cells before its own that a pixel hears of
    channel, block = _channels(channels, block_channels)
    span = block * block_spans + tl.arange(0, block_spans)
    used = (span < spans)[:, None] & (channel < channels)[None, :]
    image, row, place = _unravel(span, cell_rows, tl.cdiv(cell_columns, cells))
    cell_row = top // stride + row
    cell_column = left // stride + place * cells
    pixel = (image * out_height + cell_row) * out_width + cell_column
    source = dy + pixel[:, None] * channels + channel[None, :]
    first_column = cell_column * stride - left
    for r in tl.static_range(stride):
        sums = _zeros(columns, block_spans, block_channels)
        for m in tl.static_range((kernel - 1 - r) // stride + 1):
            offset = (r + stride * m) * kernel * channels
            weights = _tap_row(taps, channel, used, offset, channels, kernel, block_spans)
            in_row = used & ((cell_row - m >= 0) & (cell_row - m < out_height))[:, None]
            for j in tl.static_range(cells + reach):
                column = cell_column + (j - reach)
                inside = in_row & ((column >= 0) & (column < out_width))[:, None]
                shift = (j - reach - m * out_width) * channels
                value = tl.load(source + shift, mask=inside, other=0.0).to(tl.float32)
                grown = ()
                for c in tl.static_range(columns):
                    more = _plus(
                        sums[c], value, weights,
                        c % stride + stride * (c // stride - (j - reach)), kernel,
                    )  # fmt: skip
                    grown = _append(grown, more)
                sums = grown
        target_row = cell_row * stride + r - top
        in_row = used & ((target_row >= 0) & (target_row < height))[:, None]
        pixel = (image * height + target_row) * width + first_column
        target = dx + pixel[:, None] * channels + channel[None, :]
        for c in tl.static_range(columns):
            column = first_column + c
            inside = in_row & ((column >= 0) & (column < width))[:, None]
            tl.store(target + c * channels, sums[c].to(dx.dtype.element_ty), mask=inside)


@_kernel
def _partial_weight_gradient(  # type: ignore[no-untyped-def]
    x,
    dy,
    partials,
    spans,
    groups,
    height,
    width,
    out_height,
    out_width,
    top,
    left,
    stripe_spans,
    vector: tl.constexpr,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    columns: tl.constexpr,
    block_spans: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Σ dy[r, c] x[r s − top + i, c s − left + j] of stripes, into partials (stripes, k·k, C)."""
    channels = groups * vector
    channel, stripe = _channels(channels, block_channels)
    first = stripe * stripe_spans
    sums = _zeros(kernel * kernel, block_spans, block_channels)
    for step in range(0, stripe_spans, block_spans):
        span = first + step + tl.arange(0, block_spans)
        used = (span < spans)[:, None] & (channel < channels)[None, :]
        image, row, place = _unravel(span, out_height, tl.cdiv(out_width, columns))
        pixel = (image * out_height + row) * out_width + place * columns
        source = dy + pixel[:, None] * channels + channel[None, :]
        gradients = ()
        for c in tl.static_range(columns):
            inside = used & (place * columns + c < out_width)[:, None]
            gradient = tl.load(source + c * channels, mask=inside, other=0.0)
            gradients = _append(gradients, gradient.to(tl.float32))
        first_row = row * stride - top
        first_column = place * (columns * stride) - left
        pixel = (image * height + first_row) * width + first_column
        source = x + pixel[:, None] * channels + channel[None, :]
        for i in tl.static_range(kernel):
            in_row = used & ((first_row + i >= 0) & (first_row + i < height))[:, None]
            for j in tl.static_range((columns - 1) * stride + kernel):
                column = first_column + j
                inside = in_row & ((column >= 0) & (column < width))[:, None]
                value = tl.load(source + (i * width + j) * channels, mask=inside, other=0.0)
                value = value.to(tl.float32)
                grown = ()
                for tap in tl.static_range(kernel * kernel):
                    more = sums[tap]
                    if tap // kernel == i and (j - tap % kernel) % stride == 0:
                        more = _plus(more, value, gradients, (j - tap % kernel) // stride, columns)
                    grown = _append(grown, more)
                sums = grown
    place = partials + stripe.to(tl.int64) * kernel * kernel * channels + channel
    for tap in tl.static_range(kernel * kernel):
        tl.store(place + tap * channels, tl.sum(sums[tap], axis=0), mask=channel < channels)


@_kernel
def _combine_weight_gradient(  # type: ignore[no-untyped-def]
    partials,
    dweight,
    channels,
    stripes,
    number: tl.constexpr,
    block_stripes: tl.constexpr,
    block_sums: tl.constexpr,
):
    """dweight (C, number) from the sums of the stripes (stripes, number, C)."""
    entry = tl.program_id(0) * block_sums + tl.arange(0, block_sums)
    used = entry < number * channels
    total = tl.zeros([block_stripes, block_sums], dtype=tl.float32)
    for step in range(0, stripes, block_stripes):
        stripe = step + tl.arange(0, block_stripes)
        inside = (stripe < stripes)[:, None] & used[None, :]
        place = partials + stripe[:, None].to(tl.int64) * number * channels + entry[None, :]
        total += tl.load(place, mask=inside, other=0.0)
    target = dweight + entry % channels * number + entry // channels
    tl.store(target, tl.sum(total, axis=0).to(dweight.dtype.element_ty), mask=used)
