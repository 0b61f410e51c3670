"""Colour jitter of a whole batch on its own device, with factors of each image's own."""

import torch
from torch import Tensor

from data.to_device import constant

Strengths = tuple[float, float, float, float]

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as torchvision's grey


def color_jitter(pixels: Tensor, strengths: Strengths, generator: torch.Generator) -> Tensor:
    """Return (B, 3, S, S) pixels of 0..255 with brightness, contrast, saturation and hue changed.

    The distribution of torchvision's ColorJitter, in this fixed order of the four changes:
    factors uniform in [max(0, 1 - strength), 1 + strength], the hue's shift uniform in
    [-strength, strength] of a full turn. A strength of 0 leaves its change out.

    pixels: (B, 3, S, S) float32. generator: on the pixels' device.
    """
    changes = (brightness, contrast, saturation, hue)
    for change, strength in zip(changes, strengths, strict=True):
        if strength == 0:
            continue
        draw = torch.rand(len(pixels), generator=generator, device=pixels.device)
        low = -strength if change is hue else max(0.0, 1 - strength)
        high = strength if change is hue else 1 + strength
        pixels = change(pixels, low + (high - low) * draw)
    return pixels


def brightness(pixels: Tensor, factors: Tensor) -> Tensor:
    """Scale each image (B, 3, S, S) by its factor (B,)."""
    return (pixels * factors.view(-1, 1, 1, 1)).clamp_(0, 255)


def contrast(pixels: Tensor, factors: Tensor) -> Tensor:
    """Blend each image with its mean grey."""
    return blend(pixels, grey(pixels).mean((2, 3), keepdim=True), factors)


def saturation(pixels: Tensor, factors: Tensor) -> Tensor:
    """Blend each image with its grey version."""
    return blend(pixels, grey(pixels), factors)


def hue(pixels: Tensor, shifts: Tensor) -> Tensor:
    """Turn each image's hue by its shift (B,), a share of a full turn; lightness stays.

    A colour of value v, chroma c and hue t has the channel v - c · max(0, min(k, 4 - k, 1)) with
    k = (offset + 6 t) mod 6 and offset 5, 3, 1 for red, green, blue (Smith, SIGGRAPH 1978).
    """
    value, largest = pixels.max(1)
    chroma = value - pixels.min(1).values
    red, green, blue = pixels.unbind(1)
    scale = chroma.clamp(min=1e-6)
    sector = torch.where(
        largest == 0,
        (green - blue) / scale,
        torch.where(largest == 1, 2 + (blue - red) / scale, 4 + (red - green) / scale),
    )
    sector = (sector + 6 * shifts.view(-1, 1, 1))[:, None]
    k = (constant((5, 3, 1), pixels.device).view(3, 1, 1) + sector) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp_(0, 1)


def grey(pixels: Tensor) -> Tensor:
    """The lightness (B, 1, S, S) of each pixel."""
    weights = constant(_LUMA, pixels.device).view(3, 1, 1)
    return (pixels * weights).sum(1, keepdim=True)


def blend(pixels: Tensor, other: Tensor, factors: Tensor) -> Tensor:
    """Move each image from another one (factor 0) to itself (1), or beyond; within 0..255."""
    return torch.lerp(other, pixels, factors.view(-1, 1, 1, 1)).clamp_(0, 255)
