"""Random crops, flips and normalisation of a whole batch at once, on its own device."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from data.color_jitter import Strengths, color_jitter

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_ATTEMPTS = 10  # as torchvision's RandomResizedCrop


@dataclass(frozen=True)
class Augmentation:
    """How images become network inputs.

    image_size: side of the square input, in pixels.
    crop_scale: range of the share of the image's area that a training crop takes.
    crop_ratio: range of a training crop's width / height.
    flip: mirror half of the training images.
    color_jitter: strengths of brightness, contrast, saturation (shares of 1) and hue (of a turn).
    mean, std: of the channels red, green, blue, on a scale of 0..1.
    interpolation: how crops and images are resized.
    crop_fraction: evaluation of image files takes the centre crop of this share of the shorter
        side. Images cached in one size are resized whole.
    """

    image_size: int
    crop_scale: tuple[float, float] = (0.2, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    color_jitter: Strengths = (0.0, 0.0, 0.0, 0.0)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    crop_fraction: float = 0.875


def train_batch(batch: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Return (B, 3, S, S) float32: each image cropped, resized, flipped, jittered, normalised.

    batch: (B, 3, H, W) uint8. generator: on the batch's device.
    """
    count, _, height, width = batch.shape
    boxes = random_boxes(count, height, width, augmentation, generator)
    if augmentation.flip:
        flips = torch.rand(count, generator=generator, device=batch.device) < 0.5
    else:
        flips = torch.zeros(count, dtype=torch.bool, device=batch.device)
    pixels = resized_crop(batch, boxes, flips, augmentation)
    return normalise(color_jitter(pixels, augmentation.color_jitter, generator), augmentation)


def evaluation_batch(batch: Tensor, augmentation: Augmentation) -> Tensor:
    """Return (B, 3, S, S) float32: each image resized whole and normalised.

    batch: (B, 3, H, W) uint8.
    """
    size = (augmentation.image_size, augmentation.image_size)
    pixels = batch.float()
    if tuple(batch.shape[-2:]) != size:
        pixels = F.interpolate(pixels, size, mode=augmentation.interpolation, antialias=True)
        pixels = pixels.clamp_(0, 255)  # bicubic weights overshoot
    return normalise(pixels, augmentation)


def normalise(pixels: Tensor, augmentation: Augmentation) -> Tensor:
    """Return (pixels / 255 - mean) / std in float32, for (B, 3, S, S) pixels of 0..255."""
    scale, shift = _scale_and_shift(augmentation.mean, augmentation.std, pixels.device)
    return torch.addcmul(shift, pixels, scale)


def random_boxes(
    count: int, height: int, width: int, augmentation: Augmentation, generator: torch.Generator
) -> Tensor:
    """Draw (count, 4) int64 crops [left, top, width, height] of height × width images.

    The distribution of torchvision's RandomResizedCrop: a share of the area and a log aspect
    ratio, both uniform; of ten such draws the first that fits the image, else the largest
    centre crop whose ratio is in range; then a uniform position.
    """
    device = generator.device
    draws = torch.rand(2, _ATTEMPTS, count, generator=generator, device=device)
    low, high = augmentation.crop_scale
    area = (low + (high - low) * draws[0]) * (height * width)
    log_low, log_high = torch.tensor(augmentation.crop_ratio).log().tolist()
    ratio = torch.exp(log_low + (log_high - log_low) * draws[1])
    widths = (area * ratio).sqrt().round().long()
    heights = (area / ratio).sqrt().round().long()

    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.int().argmax(0, keepdim=True)
    fallback_width, fallback_height = _centre_crop(height, width, augmentation.crop_ratio)
    none = ~fits.any(0)
    crop_width = widths.gather(0, first)[0].masked_fill(none, fallback_width)
    crop_height = heights.gather(0, first)[0].masked_fill(none, fallback_height)

    place = torch.rand(2, count, generator=generator, device=device)
    free_x, free_y = width - crop_width, height - crop_height
    left = torch.where(none, free_x // 2, (place[0] * (free_x + 1)).long())
    top = torch.where(none, free_y // 2, (place[1] * (free_y + 1)).long())
    return torch.stack([left, top, crop_width, crop_height], dim=1)


def resized_crop(batch: Tensor, boxes: Tensor, flips: Tensor, augmentation: Augmentation) -> Tensor:
    """Return (B, 3, S, S) float32 pixels of 0..255: a crop of each image, resized and flipped.

    Resizing is separable, so it is two matrix products with a weight matrix per image and
    axis. The weights are those of antialiased interpolation (as Pillow's): when a crop shrinks
    the kernel widens with it, when it grows they are plain interpolation.

    batch: (B, 3, H, W) uint8. boxes: (B, 4) [left, top, width, height]. flips: (B,) bool.
    """
    count, channels, height, width = batch.shape
    size, mode = augmentation.image_size, augmentation.interpolation
    across = _resize_weights(boxes[:, 0], boxes[:, 2], width, size, mode)
    down = _resize_weights(boxes[:, 1], boxes[:, 3], height, size, mode)
    across = torch.where(flips[:, None, None], across.flip(1), across)
    rows = batch.reshape(count, channels * height, width).float() @ across.transpose(1, 2)
    pixels = down[:, None] @ rows.view(count, channels, height, size)
    return pixels.clamp_(0, 255)  # bicubic weights overshoot


def _resize_weights(start: Tensor, length: Tensor, old: int, new: int, mode: str) -> Tensor:
    """Return (B, new, old) weights that resize old pixels start..start+length to new ones."""
    device = start.device
    scale = (length / new)[:, None, None]
    targets = torch.arange(new, device=device, dtype=torch.float32)[None, :, None]
    pixels = torch.arange(old, device=device)[None, None, :]
    centres = start[:, None, None] + (targets + 0.5) * scale
    distance = ((pixels + 0.5 - centres) / scale.clamp(min=1)).abs()
    weights = _keys_kernel(distance) if mode == "bicubic" else (1 - distance).clamp_(min=0)
    inside = (pixels >= start[:, None, None]) & (pixels < (start + length)[:, None, None])
    weights = weights * inside
    return weights / weights.sum(2, keepdim=True)


def _keys_kernel(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel (1981) with a = -0.5, for distances x ≥ 0."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _centre_crop(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Return (width, height) of the largest crop whose ratio is in range."""
    if width / height < ratio[0]:
        return width, round(width / ratio[0])
    if width / height > ratio[1]:
        return round(height * ratio[1]), height
    return width, height


@lru_cache(maxsize=16)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """The two constants of normalisation, kept on the device so that no batch waits for them."""
    with torch.inference_mode(False):
        means = torch.tensor(mean, device=device).view(1, -1, 1, 1)
        stds = torch.tensor(std, device=device).view(1, -1, 1, 1)
        return 1 / (255 * stds), -means / stds
