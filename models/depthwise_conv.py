"""Depthwise 3x3, 5x5 and 7x7 convolutions as a layer, for channels_last images.

cuDNN's depthwise kernels reach a fifth of a GPU's bandwidth on these layers, and are compiled anew
for every shape in every process; TensorFlow's 'SAME' padding adds a padded copy of the images.
This layer has few kernels of its own: padding is a matter of masks, and a kernel is compiled once
for all sizes of images. Whatever they do not cover (CPU, contiguous NCHW, torch.compile, ...) is
done by PyTorch's operations.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.depthwise_conv_function import KERNEL_SIZES, ConvSize, DepthwiseConvFunction
from models.overlapped_conv import is_overlapped
from models.replaceable import has_hooks, is_timm
from utils.optional_triton import DTYPES, runs_kernels


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
            size = ConvSize.of(x, self.kernel_size[0], self.stride[0], self._paddings(x))
            if size.out_height > 0 and size.out_width > 0:
                overlap = self.overlap and is_overlapped(x)
                return cast(
                    Tensor, DepthwiseConvFunction.apply(x.to(_dtype(x)), self.weight, size, overlap)
                )
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
        if not runs_kernels(x):
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
    kernel, stride = module.kernel_size, module.stride
    return (
        not has_hooks(module)
        and (type(module) is nn.Conv2d or is_timm(module, "Conv2dSame"))
        and module.in_channels == module.out_channels == module.groups > 1
        and module.bias is None
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and kernel[0] == kernel[1]
        and kernel[0] in KERNEL_SIZES
        and stride[0] == stride[1]
        and stride[0] in (1, 2)
    )


def _depthwise_like(module: nn.Conv2d) -> DepthwiseConv2d:
    depthwise = DepthwiseConv2d(
        module.in_channels,
        module.kernel_size[0],
        module.stride[0],
        cast(tuple[int, int], module.padding),
        is_timm(module, "Conv2dSame"),
        device="meta",  # no memory: its weight is the module's
    )
    depthwise.weight = module.weight
    return depthwise.train(module.training)
