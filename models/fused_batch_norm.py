"""Batch normalisation and the activation after it as one layer, for channels_last images.

In training, PyTorch's own kernels reach less than half of a GPU's bandwidth, and the activation
reads and writes everything once more. This layer has few kernels of its own; whatever they do not
cover (CPU, contiguous NCHW, torch.compile, ...) is done by PyTorch's operations.
"""

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batch_norm_function import Activation, BatchNormFunction, BatchNormOptions
from models.replaceable import has_hooks, is_timm
from utils.optional_triton import DTYPES, runs_kernels


class FusedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with the activation that follows: the same parameters, buffers and keys.

    Maps (B, C, H, W) to the same shape, dtype and memory format. Statistics and arithmetic are
    float32 (Ioffe & Szegedy, Batch Normalization, 2015). A `shortcut` of that shape is added
    before the activation, as residual blocks do.

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

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        if self._kernels_cover(x) and (shortcut is None or _alike(shortcut, x)):
            arguments = (*self._tensors(), shortcut, self._options())
            return cast(Tensor, BatchNormFunction.apply(x, *arguments))
        z = super().forward(x)
        if shortcut is not None:
            z += shortcut  # in z's dtype, as torchvision's blocks do
        if self.activation is None:
            return z
        activate = F.relu if self.activation == "relu" else F.relu6
        return activate(z, inplace=True)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation}"

    def _tensors(self) -> tuple[Tensor | None, ...]:
        buffers = (self.running_mean, self.running_var, self.num_batches_tracked)
        return (self.weight, self.bias, *buffers)

    def _options(self) -> BatchNormOptions:
        momentum = float(cast(float, self.momentum))
        return BatchNormOptions(self.training, momentum, float(self.eps), self.activation)

    def _kernels_cover(self, x: Tensor) -> bool:
        if not runs_kernels(x):
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


def _alike(shortcut: Tensor, x: Tensor) -> bool:
    """Whether kernels may read a shortcut at the places of x."""
    return (
        shortcut.shape == x.shape
        and shortcut.dtype == x.dtype
        and shortcut.device == x.device
        and shortcut.is_contiguous(memory_format=torch.channels_last)
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
    if has_hooks(module):
        return False
    if type(module) is nn.BatchNorm2d:
        return True
    if not is_timm(module, "BatchNormAct2d"):
        return False
    others = (getattr(module, "drop", None), getattr(module, "aa", None))
    return (
        type(module.act) in ACTIVATIONS
        and not has_hooks(cast(nn.Module, module.act))
        and all(each is None or type(each) is nn.Identity for each in others)
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
            plain = type(module) is nn.BatchNorm2d and not has_hooks(after)
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
