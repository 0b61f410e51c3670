"""Resizing of a whole batch at once, each image with a box of its own, on its own device.

Resizing is separable, so it is two matrix products, with a weight matrix per axis. The weights
are those of antialiased interpolation (as Pillow's): when pixels shrink the kernel widens with
them, when they grow it is plain interpolation.
"""

from functools import lru_cache

import torch
from torch import Tensor


def resize(batch: Tensor, size: int, interpolation: str) -> Tensor:
    """Return (B, 3, size, size) float32 pixels of 0..255: each image whole.

    batch: (B, 3, H, W) uint8. interpolation: 'bilinear' or 'bicubic'.
    """
    height, width = batch.shape[-2:]
    weights = _whole_weights(height, width, size, interpolation, batch.device)
    return _resample(batch, weights.expand(len(batch), -1, -1, -1), interpolation)


def resized_crop(
    batch: Tensor,
    boxes: Tensor,
    flips: Tensor,
    size: int,
    interpolation: str,
    bounds: Tensor | None = None,
) -> Tensor:
    """Return (B, 3, size, size) float32 pixels of 0..255: a box of each image, perhaps mirrored.

    batch: (B, 3, H, W) uint8.
    boxes: (B, 4) [left, top, width, height], also fractions of pixels.
    flips: (B,) bool.
    bounds: (B, 4) likewise, whole pixels: those that exist. By default the boxes, so that an
        image is cropped before it is resized; with wider bounds a crop is taken out of the
        resized image.
    """
    bounds = boxes if bounds is None else bounds
    weights = _weights(boxes, bounds, flips, max(batch.shape[-2:]), size, interpolation)
    return _resample(batch, weights, interpolation)


def _resample(batch: Tensor, weights: Tensor, interpolation: str) -> Tensor:
    """Multiply every image by its weights (B, 2, new, old), of which the last may be unused."""
    count, channels, height, width = batch.shape
    size = weights.shape[2]
    across, down = weights[:, 0, :, :width], weights[:, 1, :, :height]
    # Lines of the three channels side by side make both products plain batches of matrices.
    lines = batch.permute(0, 2, 1, 3).to(torch.float32, memory_format=torch.contiguous_format)
    lines = lines.view(count, height * channels, width) @ across.transpose(1, 2)
    pixels = down @ lines.view(count, height, channels * size)
    if interpolation == "bicubic":
        pixels = pixels.clamp_(0, 255)  # its weights overshoot
    return pixels.view(count, size, channels, size).permute(0, 2, 1, 3)


def _weights(
    boxes: Tensor, bounds: Tensor, flips: Tensor, old: int, new: int, interpolation: str
) -> Tensor:
    """Return (B, 2, new, old) weights: across and down."""
    start, length = boxes.reshape(-1, 2, 2, 1, 1).float().unbind(1)
    first, extent = bounds.reshape(-1, 2, 2, 1, 1).float().unbind(1)
    scale = length / new
    targets = _centres(new, boxes.device)[:, None]
    mirrored = torch.where(flips[:, None, None], new - targets, targets)
    targets = torch.stack([mirrored, targets.expand_as(mirrored)], dim=1)
    pixels = _centres(old, boxes.device)
    centres = torch.addcmul(start, targets, scale)
    distance = (pixels - centres).div_(scale.clamp(min=1)).abs_()
    weights = _keys_kernel(distance) if interpolation == "bicubic" else (1 - distance).clamp_(0)
    weights.masked_fill_((pixels < first) | (pixels > first + extent), 0)
    return weights.div_(weights.sum(3, keepdim=True))


@lru_cache(maxsize=16)
def _whole_weights(
    height: int, width: int, size: int, interpolation: str, device: torch.device
) -> Tensor:
    """Return (1, 2, size, max(height, width)): weights that resize images whole."""
    with torch.inference_mode(False):
        box = torch.tensor([[0, 0, width, height]])
        no_flip = torch.zeros(1, dtype=torch.bool)
        # Made on the CPU: the copy is complete on return, whichever stream uses it.
        return _weights(box, box, no_flip, max(height, width), size, interpolation).to(device)


def _keys_kernel(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel (1981) with a = -0.5, for distances x ≥ 0."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _centres(count: int, device: torch.device) -> Tensor:
    """Return (count,) float32 centres of pixels: 0.5, 1.5, …"""
    return torch.arange(0.5, count, device=device)
