"""Crops of images of different sizes, resized together on their device."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from data.crops import Crop
from data.resize import resized_crop
from data.to_device import upload

_PIXELS = 2**24  # of a padded batch: about 50 MB, and 200 MB while it is resized


def resize_crops(
    images: Sequence[Tensor], crops: Sequence[Crop], size: int, interpolation: str
) -> Tensor:
    """Return (n, 3, size, size) float32 pixels of 0..255: a crop of each image.

    images: n of (3, H, W) uint8 on one device, of any sizes.
    """
    device = images[0].device
    result = torch.empty((len(images), 3, size, size), device=device)
    regions = np.array([crop.region for crop in crops])
    for rows in _pieces(regions[:, 2], regions[:, 3]):
        own_crops = [crops[row] for row in rows]
        batch = _pack([images[row] for row in rows], regions[rows])
        numbers = [(*crop.box, 0, 0, *crop.region[2:], crop.flip) for crop in own_crops]
        table = upload(np.array(numbers, dtype=np.float32), device)
        boxes, bounds, flips = table[:, :4], table[:, 4:8], table[:, 8] > 0
        pixels = resized_crop(batch, boxes, flips, size, interpolation, bounds)
        result.index_copy_(0, upload(rows, device), pixels)
    return result


def _pieces(widths: np.ndarray, heights: np.ndarray) -> Iterator[np.ndarray]:
    """Cut the images, the largest first, into pieces of at most _PIXELS when padded."""
    order = np.argsort(-widths * heights, kind="stable")
    start, width, height = 0, 0, 0
    for stop, row in enumerate(order):
        width, height = max(width, widths[row]), max(height, heights[row])
        if stop > start and (stop + 1 - start) * width * height > _PIXELS:
            yield order[start:stop]
            start, width, height = stop, widths[row], heights[row]
    yield order[start:]


def _pack(images: Sequence[Tensor], regions: np.ndarray) -> Tensor:
    """Return (m, 3, H, W) uint8: a region of each image in the upper left, else any pixels.

    All images are joined to one line of bytes, of which every row of a region is a window: one
    launch copies all windows, where copying image by image would take one each.

    regions: (m, 4) [left, top, width, height]; H and W are the largest.
    """
    device = images[0].device
    width, height = int(regions[:, 2].max()), int(regions[:, 3].max())
    line = torch.cat([*(image.reshape(-1) for image in images), images[0].new_zeros(width)])
    windows = line.as_strided((len(line) - width + 1, width), (1, 1))

    shapes = np.array([image.shape[1:] for image in images])
    planes = shapes.prod(1)
    starts = np.cumsum(3 * planes) - 3 * planes + regions[:, 1] * shapes[:, 1] + regions[:, 0]
    numbers = np.stack([starts, planes, shapes[:, 1], regions[:, 3] - 1])
    start, plane, stride, last = upload(numbers, device)[:, :, None, None]
    y = torch.arange(height, device=device)[:, None].minimum(last)
    rows = start + y * stride + torch.arange(3, device=device) * plane
    return windows[rows].permute(0, 2, 1, 3)
