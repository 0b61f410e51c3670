"""The depthwise convolution's forward and backward pass: which kernels run, in what grids.

An image (H, W) is cut into spans: a few columns that lie side by side in one row. A program makes a
block of spans, one under the other, times a block of channels, which lie side by side in memory:

- forward, and the gradient of the input with stride 1 (the same with the taps turned around): what
  a span needs of a row is read once and goes into the sums of all its columns.
- gradient of the input with stride s: the taps are dealt out to the s·s positions of a pixel that
  they can reach, so each is used once a cell of s·s pixels, and nothing is added up in memory.
- gradient of the weight: sums of each stripe of spans, all k·k at a time; all stripes combined.

Nothing is read back by the host, so a CUDA graph can record it all.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models import depthwise_conv_kernels as kernels
from models.overlapped_conv import beside
from utils.optional_triton import channel_groups, early_launch, triton

WARPS = 4
REDUCE_WARPS = 2  # of the kernel that sums
BLOCK_CHANNELS = 32
VALUES = 4  # of a column that a thread holds: 8 bytes in half precision
REDUCED_VALUES = {1: 8, 3: 4, 5: 4, 7: 2}  # by kernel size: it holds k·k sums of each
KERNEL_SIZES = tuple(REDUCED_VALUES)
COLUMNS = (4, 7)  # of a span; the one that leaves fewer columns over
REDUCED_COLUMNS = 4  # of a span of the kernel that sums
CELLS = 2  # of s·s pixels, of a span of the gradient with stride s
REDUCE_PROGRAMS = 528  # of the kernel that sums: 4 for each multiprocessor of an H200
COMBINED_STRIPES = 64  # stripes that are combined at a time,
COMBINED_SUMS = 32  # for so many sums a program


@dataclass(frozen=True)
class ConvSize:
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
    def of(
        cls, x: Tensor, kernel: int, stride: int, paddings: tuple[tuple[int, int], ...]
    ) -> "ConvSize":
        """Of images x with so many rows above and below, columns left and right of padding."""
        out_height, out_width = (
            (length + sum(padding) - kernel) // stride + 1
            for length, padding in zip(x.shape[2:], paddings, strict=True)
        )
        batch, channels, height, width = x.shape
        (top, _), (left, _) = paddings
        sizes = (batch, channels, height, width, out_height, out_width)
        return cls(*sizes, top, left, kernel, stride)

    def turned(self) -> "ConvSize":
        """Of the convolution of the output's gradient that is the input's, for stride 1."""
        top, left = (self.kernel - 1 - padding for padding in (self.top, self.left))
        sizes = (self.out_height, self.out_width, self.height, self.width)
        return ConvSize(self.batch, self.channels, *sizes, top, left, self.kernel, 1)

    def arguments(self) -> dict[str, int]:
        """The sizes that the kernels of whole spans take by name."""
        names = ("height", "width", "out_height", "out_width", "top", "left", "kernel", "stride")
        return {name: getattr(self, name) for name in names}


class DepthwiseConvFunction(torch.autograd.Function):
    """The kernels, forward and backward, of one layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, size: ConvSize, overlap: bool) -> Tensor:
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


def _convolution(x: Tensor, taps: Tensor, size: ConvSize, turned: bool) -> Tensor:
    y = _empty_images(x, size.out_height, size.out_width)
    columns = min(COLUMNS, key=lambda each: triton.cdiv(size.out_width, each) * each)
    spans = size.batch * size.out_height * triton.cdiv(size.out_width, columns)
    grid, plan = _plan(x, size, spans, columns, VALUES)
    first, step = (taps[-1], -1) if turned else (taps, 1)
    kernels.convolve[grid](x, first, y, tap_step=step, **plan)
    return y


def _strided_input_gradient(dy: Tensor, taps: Tensor, size: ConvSize) -> Tensor:
    dx = _empty_images(dy, size.height, size.width)
    stride = size.stride
    # Cells of stride x stride pixels, from the one that holds the first pixel behind the padding.
    cell_rows = (size.height - 1 + size.top) // stride - size.top // stride + 1
    cell_columns = (size.width - 1 + size.left) // stride - size.left // stride + 1
    spans = size.batch * cell_rows * triton.cdiv(cell_columns, CELLS)
    grid, plan = _plan(dy, size, spans, CELLS * stride, VALUES)
    cells = {"cell_rows": cell_rows, "cell_columns": cell_columns}
    kernels.deal_out[grid](dy, taps, dx, **cells, **plan)
    return dx


def _weight_gradient(x: Tensor, dy: Tensor, size: ConvSize, dtype: torch.dtype) -> Tensor:
    """(C, 1, k, k); its memory is the same in either memory format, its strides are an image's."""
    columns = REDUCED_COLUMNS
    spans = size.batch * size.out_height * triton.cdiv(size.out_width, columns)
    (programs,), plan = _plan(x, size, spans, columns, REDUCED_VALUES[size.kernel], REDUCE_WARPS)
    blocks = triton.cdiv(size.channels, BLOCK_CHANNELS)
    most = min(max(REDUCE_PROGRAMS // blocks, 1), programs // blocks)
    block_spans = plan["block_spans"]
    stripe_spans = triton.cdiv(triton.cdiv(spans, most), block_spans) * block_spans
    stripes = triton.cdiv(spans, stripe_spans)
    number = size.kernel**2
    partials = x.new_empty((stripes, number, size.channels), dtype=torch.float32)
    kernels.partial_weight_gradient[(blocks * stripes,)](
        x, dy, partials, stripe_spans=stripe_spans, **plan
    )
    shape = (size.channels, 1, size.kernel, size.kernel)
    dweight = torch.empty(shape, dtype=dtype, device=x.device, memory_format=torch.channels_last)
    kernels.combine_weight_gradient[(triton.cdiv(number * size.channels, COMBINED_SUMS),)](
        partials, dweight, size.channels, stripes, number,
        COMBINED_STRIPES, COMBINED_SUMS, num_warps=WARPS, **early_launch(x.device),
    )  # fmt: skip
    return dweight


def _empty_images(like: Tensor, height: int, width: int) -> Tensor:
    shape = (*like.shape[:2], height, width)
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def _plan(
    x: Tensor, size: ConvSize, spans: int, columns: int, values: int, warps: int = WARPS
) -> tuple[tuple[int], dict[str, Any]]:
    """Grid and sizes of a kernel that goes through all spans, with so many values a thread."""
    block_spans = 32 * warps * values // BLOCK_CHANNELS
    sizes = {
        "spans": spans,
        "columns": columns,
        "block_spans": block_spans,
        "block_channels": BLOCK_CHANNELS,
        "num_warps": warps,
        **channel_groups(size.channels),
        **size.arguments(),
        **early_launch(x.device),
    }
    blocks = triton.cdiv(size.channels, BLOCK_CHANNELS)
    return (blocks * triton.cdiv(spans, block_spans),), sizes
