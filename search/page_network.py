"""A model's networks as one frozen graph for the CPU: two to three times as fast as in Python.

Batch normalisation goes into the convolutions and these keep their weights in the layout of the
CPU's kernels. Sums come in another order then, so outputs differ by rounding.
"""

import copy
import warnings

import torch
from torch import Tensor, nn

BATCH = 4  # images at a time: with more, EfficientNet-Lite0 was slower
ROUNDING = 1e-4  # of the outputs' mean size; what was seen is below a tenth of it


class CodeOutputs(nn.Module):
    """The one output of networks that codes are the signs of: images (B, 3, S, S) → (B, q)."""

    def __init__(self, networks: nn.Module, name: str) -> None:
        super().__init__()
        self.networks = networks
        self.name = name

    def forward(self, images: Tensor) -> Tensor:
        """Real numbers (B, q)."""
        return self.networks(images)[self.name]


def frozen(networks: nn.Module, name: str, image_size: int) -> nn.Module:
    """The networks' output `name` as a frozen graph, or plainly where they have none such.

    They have none when they cannot be traced, or when the graph gives other outputs, as it does
    of networks that look at what they are given.
    """
    plain = CodeOutputs(networks, name).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2 * BATCH, 3, image_size, image_size, generator=generator) * 2 - 1
    for make in (_in_kernels_layout, _folded):
        try:
            with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
                warnings.simplefilter("ignore")  # torch would rather export, which keeps it slow
                graph = make(plain, images[:BATCH])
                if _alike(plain, graph, images):
                    return graph
        except Exception:  # torch's are of many kinds, and the plain networks do the same
            continue
    return plain


def _folded(plain: nn.Module, images: Tensor) -> torch.jit.ScriptModule:
    """Traced, with batch normalisation in the convolutions."""
    # A copy: the conversion of parameters must not reach the networks themselves.
    return torch.jit.freeze(torch.jit.trace(copy.deepcopy(plain), images, check_trace=False))


def _in_kernels_layout(plain: nn.Module, images: Tensor) -> nn.Module:
    """The same in the layout of oneDNN's kernels, which do not know all layers."""
    return torch.jit.optimize_for_inference(_folded(plain, images))


def near_zero(outputs: Tensor) -> Tensor:
    """Which images (B,) have an output (B, q) whose sign rounding might turn."""
    size = outputs.square().mean(1, keepdim=True).sqrt()
    return (outputs.abs() <= ROUNDING * size).any(1)


def _alike(plain: nn.Module, graph: nn.Module, images: Tensor) -> bool:
    """Whether both give the same for batches of every size; this also warms the graph up."""
    wanted = torch.cat([plain(image[None]) for image in images])
    bound = ROUNDING * wanted.square().mean().sqrt()
    for _ in range(2):
        for size in range(1, BATCH + 1):
            found = torch.cat([graph(part) for part in images.split(size)])
            if not bool((found - wanted).abs().max() <= bound):
                return False
    return True
