"""Which part of an image file a network sees, and that part cut out by Pillow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from data.augment import Augmentation, random_boxes


class Crop(NamedTuple):
    """A part of an image, before it is resized to a square.

    region: [left, top, width, height] in whole pixels: those that are used.
    box: likewise of the part to resize, in fractions of pixels, from the region's corner. The
        region around it counts where the kernel of the interpolation reaches beyond.
    flip: whether the result is mirrored.
    """

    region: tuple[int, int, int, int]
    box: tuple[float, float, float, float]
    flip: bool


@dataclass(frozen=True)
class Crops:
    """Crops of n images: regions (n, 4) int64, boxes (n, 4) float32, flips (n,) bool."""

    regions: np.ndarray
    boxes: np.ndarray
    flips: np.ndarray

    def part(self, first: int, last: int) -> "Crops":
        """The crops from one to before another."""
        rows = slice(first, last)
        return Crops(self.regions[rows], self.boxes[rows], self.flips[rows])


def stack_crops(crops: Sequence[Crop]) -> Crops:
    """Return single crops as arrays."""
    return Crops(
        np.array([crop.region for crop in crops], dtype=np.int64).reshape(-1, 4),
        np.array([crop.box for crop in crops], dtype=np.float32).reshape(-1, 4),
        np.array([crop.flip for crop in crops], dtype=bool),
    )


def training_crop(
    width: int, height: int, augmentation: Augmentation, seed: int, place: int
) -> Crop:
    """Draw a random crop and flip from the seed and the image's place in the epoch."""
    stream = np.random.SeedSequence([seed, place]).generate_state(1)[0]
    generator = torch.Generator().manual_seed(int(stream))
    left, top, width, height = random_boxes(1, height, width, augmentation, generator)[0].tolist()
    flip = augmentation.flip and bool(torch.rand((), generator=generator) < 0.5)
    return Crop((left, top, width, height), (0.0, 0.0, float(width), float(height)), flip)


def centre_crop(width: int, height: int, augmentation: Augmentation) -> Crop:
    """Return the centre of the image with its shorter side resized to S / crop_fraction."""
    factor = round(augmentation.image_size / augmentation.crop_fraction) / min(width, height)
    left, across, x, box_width = _centre_span(width, factor, augmentation)
    top, down, y, box_height = _centre_span(height, factor, augmentation)
    return Crop((left, top, across, down), (x, y, box_width, box_height), flip=False)


def _centre_span(
    side: int, factor: float, augmentation: Augmentation
) -> tuple[int, int, float, float]:
    """Return (start, length) of the region along one axis, then of the box in it."""
    size = augmentation.image_size
    resized = max(size, round(side * factor))
    scale = side / resized
    start, length = (resized - size) // 2 * scale, size * scale
    support = max(scale, 1) * (2 if augmentation.interpolation == "bicubic" else 1)
    low = max(0, math.floor(start - support))
    high = min(side, math.ceil(start + length + support))
    return low, high - low, start - low, length


def crop_image(image: Image.Image, crop: Crop, augmentation: Augmentation) -> np.ndarray:
    """Return (3, S, S) uint8: the crop of an RGB image, resized and flipped by Pillow."""
    left, top, width, height = crop.region
    image = image.crop((left, top, left + width, top + height))
    x, y, box_width, box_height = crop.box
    # The minima: sums may round to just outside.
    box = (x, y, min(x + box_width, width), min(y + box_height, height))
    size = (augmentation.image_size, augmentation.image_size)
    image = image.resize(size, Image.Resampling[augmentation.interpolation.upper()], box)
    if crop.flip:
        image = ImageOps.mirror(image)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
