"""Crops of images of different sizes, resized together on their device."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from data.crops import Crops
from data.jpeg_files import PackedImages
from data.resize import resized_crop
from data.to_device import upload

_PIXELS = 2**24  # of a padded batch: about 50 MB, and 200 MB while it is resized


def resize_crops(images: PackedImages, crops: Crops, size: int, interpolation: str) -> Tensor:
    """Return (n, 3, size, size) float32 pixels of 0..255: a crop of each of n images."""
    device, regions = images.line.device, crops.regions
    result = torch.empty((len(regions), 3, size, size), device=device)
    corners = np.zeros((len(regions), 2))
    numbers = [crops.boxes, corners, regions[:, 2:], crops.flips[:, None]]
    table = upload(np.concatenate(numbers, axis=1, dtype=np.float32), device)
    for rows in _pieces(regions[:, 2], regions[:, 3]):
        places = upload(rows, device)
        own = table[places]
        boxes, bounds, flips = own[:, :4], own[:, 4:8], own[:, 8] > 0
        batch = _cut(images, rows, regions[rows])
        pixels = resized_crop(batch, boxes, flips, size, interpolation, bounds)
        result.index_copy_(0, places, pixels)
    return result


def _pieces(widths: np.ndarray, heights: np.ndarray) -> Iterator[np.ndarray]:
    """Cut the images, the largest first, into pieces of at most _PIXELS when padded."""
    order = np.argsort(-widths * heights, kind="stable")
    start, width, height = 0, 0, 0
    sides = np.stack([widths, heights], axis=1)[order].tolist()
    for stop, (across, down) in enumerate(sides):
        width, height = max(width, across), max(height, down)
        if stop > start and (stop + 1 - start) * width * height > _PIXELS:
            yield order[start:stop]
            start, width, height = stop, across, down
    yield order[start:]


def _cut(images: PackedImages, rows: np.ndarray, regions: np.ndarray) -> Tensor:
    """Return (m, 3, H, W) uint8: a region of each image in the upper left, else any pixels.

    Every row of a region is a window of the line of all pixels: one launch copies all windows,
    where copying image by image would take one each.

    regions: (m, 4) [left, top, width, height]; H and W are the largest.
    """
    line, device = images.line, images.line.device
    width, height = int(regions[:, 2].max()), int(regions[:, 3].max())
    windows = line.as_strided((len(line) - width + 1, width), (1, 1))

    strides = images.sizes[rows, 1]
    starts = images.starts[rows] + regions[:, 1] * strides + regions[:, 0]
    numbers = np.stack([starts, images.planes[rows], strides, regions[:, 3] - 1])
    start, plane, stride, last = upload(numbers, device)[:, :, None, None]
    y = torch.arange(height, device=device)[:, None].minimum(last)
    places = start + y * stride + torch.arange(3, device=device) * plane
    return windows[places].permute(0, 2, 1, 3)
