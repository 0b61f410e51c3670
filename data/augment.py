"""Random crops, flips and normalisation of a whole batch at once, on its own device."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from data.color_jitter import Strengths, color_jitter
from data.resize import resize, resized_crop
from data.to_device import constant
from data.trivial_augment import trivial_augment

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
    trivial_augment: change each training image by one operation more, drawn from fourteen.
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
    trivial_augment: bool = False
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    crop_fraction: float = 0.875


def train_batch(batch: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Return (B, 3, S, S) float32: each image cropped, resized, flipped, distorted, normalised.

    batch: (B, 3, H, W) uint8. generator: on the batch's device.
    """
    count, _, height, width = batch.shape
    boxes = random_boxes(count, height, width, augmentation, generator)
    if augmentation.flip:
        flips = torch.rand(count, generator=generator, device=batch.device) < 0.5
    else:
        flips = torch.zeros(count, dtype=torch.bool, device=batch.device)
    size, interpolation = augmentation.image_size, augmentation.interpolation
    pixels = resized_crop(batch, boxes, flips, size, interpolation)
    return normalise(distort(pixels, augmentation, generator), augmentation)


def distort(pixels: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Return training crops (B, 3, S, S) of 0..255 jittered and changed by TrivialAugment.

    Each only where the augmentation asks for it. generator: on the pixels' device.
    """
    pixels = color_jitter(pixels, augmentation.color_jitter, generator)
    return trivial_augment(pixels, generator) if augmentation.trivial_augment else pixels


def evaluation_batch(batch: Tensor, augmentation: Augmentation) -> Tensor:
    """Return (B, 3, S, S) float32: each image resized whole and normalised.

    batch: (B, 3, H, W) uint8.
    """
    size = augmentation.image_size
    if batch.shape[-2:] == (size, size):
        return normalise(batch.float(), augmentation)
    return normalise(resize(batch, size, augmentation.interpolation), augmentation)


def normalise(pixels: Tensor, augmentation: Augmentation) -> Tensor:
    """Return (pixels / 255 - mean) / std in float32, for (B, 3, S, S) pixels of 0..255.

    On a GPU the result is channels_last, the layout that convolutions there prefer.
    """
    pairs = list(zip(augmentation.mean, augmentation.std, strict=True))
    scale = constant(tuple(1 / (255 * std) for _, std in pairs), pixels.device)
    shift = constant(tuple(-mean / std for mean, std in pairs), pixels.device)
    layout = torch.channels_last if pixels.is_cuda else torch.contiguous_format
    result = torch.empty(pixels.shape, device=pixels.device, memory_format=layout)
    return torch.addcmul(shift.view(-1, 1, 1), pixels, scale.view(-1, 1, 1), out=result)


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
    low, high = (share * height * width for share in augmentation.crop_scale)
    log_low, log_high = (math.log(ratio) for ratio in augmentation.crop_ratio)
    area = low + (high - low) * draws[0]
    ratio = torch.exp(log_low + (log_high - log_low) * draws[1])
    sides = torch.stack([area * ratio, area / ratio]).sqrt().round()

    whole = constant(((width,), (height,)), device)
    centre = constant(_centre_crop(height, width, augmentation.crop_ratio), device)[:, None]
    fitting, first = ((sides > 0) & (sides <= whole[:, None])).all(0).byte().max(0)
    fits = fitting.bool()
    crop = torch.where(fits, sides.gather(1, first.expand(2, 1, -1))[:, 0], centre)

    place = torch.rand(2, count, generator=generator, device=device)
    free = whole - crop
    # The minimum: place * (free + 1) may round up to free + 1.
    drawn = (place * (free + 1)).minimum(free)
    corner = torch.where(fits, drawn, free / 2).floor()
    return torch.cat([corner, crop]).T.long()


def _centre_crop(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Return (width, height) of the largest crop whose ratio is in range."""
    if width / height < ratio[0]:
        return width, round(width / ratio[0])
    if width / height > ratio[1]:
        return round(height * ratio[1]), height
    return width, height
