"""torchvision's ResNets with addition and activation inside their batch normalisations.

Their blocks keep the activation apart from the normalisation before it, and the addition of the
shortcut too: kernels that read and write everything once more. `models/fused_batch_norm.py` does
all three at once.
"""

from typing import Any, cast

from torch import Tensor, nn

from models.fused_batch_norm import FusedBatchNorm2d
from models.replaceable import has_hooks, is_torchvision


class ResidualBlock(nn.Module):
    """torchvision's `BasicBlock` or `Bottleneck` (He et al., CVPR 2016) as one of these.

    The same modules, parameters and keys; its `relu` is not called.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        block = cast(Any, self)
        shortcut = x if block.downsample is None else block.downsample(x)
        *inner, (last, last_norm) = _layers(self)
        for convolution, norm in inner:
            x = norm(convolution(x))
        return cast(Tensor, last_norm(last(x), shortcut))


def fuse_residual_blocks(model: nn.Module) -> int:
    """Make torchvision's ResNet blocks, and the layers before them, so, in place; returns how many.

    For a model whose batch normalisations are fused. Left are subclasses, blocks with an activation
    other than ReLU, and what carries hooks inside.
    """
    blocks = [each for each in model.modules() if _is_block(each) and _fits(each, _norms(each))]
    for block in blocks:
        for norm in _norms(block):
            norm.activation = "relu"
        block.__class__ = ResidualBlock
    stems = [each for each in model.modules() if is_torchvision(each, "ResNet")]
    for network in (each for each in stems if _fits(each, [each.bn1])):
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


def _is_block(module: nn.Module) -> bool:
    return is_torchvision(module, "BasicBlock") or is_torchvision(module, "Bottleneck")


def _fits(module: nn.Module, norms: list[Any]) -> bool:
    """Whether a module's activation is a ReLU that nobody watches, after norms without one."""
    plain = all(type(norm) is FusedBatchNorm2d and norm.activation is None for norm in norms)
    relu = cast(nn.Module, module.relu)
    return plain and type(relu) is nn.ReLU and not has_hooks(relu)
