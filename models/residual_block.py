"""torchvision's ResNets with addition and activation inside their batch normalisations.

Their blocks keep the activation apart from the normalisation before it, and the addition of the
shortcut too: kernels that read and write everything once more. `models/fused_batch_norm.py` does
all three at once.
"""

from collections import Counter
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.fused_batch_norm import FusedBatchNorm2d
from models.overlapped_conv import is_overlapped, run_beside, wait_for
from models.replaceable import has_hooks

RESNETS = "torchvision.models.resnet"  # not imported: it is slow to
BLOCKS = ("BasicBlock", "Bottleneck")


class ResidualBlock(nn.Module):
    """What torchvision's `BasicBlock` and `Bottleneck` (He et al., CVPR 2016) are turned into.

    Modules, parameters and keys are theirs; `relu` is not called. If `overlap` is on, small
    training batches have their shortcut's convolution computed beside the others.
    """

    overlap = False

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        downsample = cast(nn.Module | None, self.downsample)
        beside = downsample is not None and self._overlaps(x)
        if downsample is None:
            shortcut = x
        else:
            shortcut = run_beside(downsample, x) if beside else downsample(x)
        *inner, (last, last_norm) = _layers(self)
        for convolution, norm in inner:
            x = norm(convolution(x))
        x = last(x)
        return cast(Tensor, last_norm(x, wait_for(shortcut) if beside else shortcut))

    def _overlaps(self, x: Tensor) -> bool:
        return self.overlap and torch.is_grad_enabled() and is_overlapped(x)


def fuse_residual_blocks(model: nn.Module) -> int:
    """Turn torchvision's ResNet blocks inside a model into `ResidualBlock`s, in place.

    For a model whose batch normalisations are fused. Its ResNets' first normalisation takes its
    activation, too. Subclasses stay as they are, and what has an activation other than ReLU, hooks
    on it, or a normalisation that other layers use as well.

    Returns:
        How many blocks were turned.
    """
    uses = Counter(child for parent in model.modules() for child in parent._modules.values())
    found = [each for each in model.modules() if type(each).__module__ == RESNETS]
    blocks = [each for each in found if type(each).__name__ in BLOCKS]
    blocks = [each for each in blocks if _fits(each, _norms(each), uses)]
    for block in blocks:
        for norm in _norms(block):
            norm.activation = "relu"
        block.__class__ = ResidualBlock
    for network in (each for each in found if type(each).__name__ == "ResNet"):
        if _fits(network, [network.bn1], uses):
            cast(Any, network.bn1).activation = "relu"
            network.relu = nn.Identity()
    return len(blocks)


def _layers(block: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Convolutions in their order, each with its normalisation."""
    count = 3 if hasattr(block, "conv3") else 2
    return [
        (cast(nn.Module, getattr(block, f"conv{n}")), cast(nn.Module, getattr(block, f"bn{n}")))
        for n in range(1, count + 1)
    ]


def _norms(block: nn.Module) -> list[Any]:
    return [norm for _, norm in _layers(block)]


def _fits(module: nn.Module, norms: list[Any], uses: Counter[nn.Module | None]) -> bool:
    """Whether a module runs as torchvision wrote it: norms of its own, then a plain ReLU."""
    plain = all(type(norm) is FusedBatchNorm2d and norm.activation is None for norm in norms)
    own = all(uses[norm] == 1 for norm in norms) and "forward" not in vars(module)
    relu = cast(nn.Module, module.relu)
    return plain and own and type(relu) is nn.ReLU and not has_hooks(relu)
