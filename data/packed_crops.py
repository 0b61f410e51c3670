"""Crops of images of different sizes, resized together on their device."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from data import crop_kernels as kernels
from data.crops import Crops
from data.jpeg_files import PackedImages
from data.resize import resized_crop
from data.to_device import upload
from utils.optional_triton import runs_kernels, triton

BLOCK_ROWS, BLOCK_COLUMNS = 16, 64  # of a kernel's program
_PIXELS = 2**24  # of a padded batch: about 50 MB, and 200 MB while it is resized


def resize_crops(images: PackedImages, crops: Crops, size: int, interpolation: str) -> Tensor:
    """Return (n, 3, size, size) float32 pixels of 0..255: a crop of each of n images.

    On a GPU by kernels of our own: beside a decoder and training each launch waits for its turn,
    so there are two of them, where PyTorch's operations are some forty a piece.
    """
    if runs_kernels(images.line):
        return _resize_by_kernels(images, crops, size, interpolation == "bicubic")
    device, regions = images.line.device, crops.regions
    result = torch.empty((len(regions), 3, size, size), device=device)
    corners = np.zeros((len(regions), 2))
    numbers = [crops.boxes, corners, regions[:, 2:], crops.flips[:, None]]
    table = upload(np.concatenate(numbers, axis=1, dtype=np.float32), device)
    for rows in _pieces(regions[:, 2], regions[:, 3]):
        places = upload(rows, device)
        own = table[places]
        boxes, bounds, flips = own[:, :4], own[:, 4:8], own[:, 8] > 0
        batch = _cut(images, regions, rows)
        pixels = resized_crop(batch, boxes, flips, size, interpolation, bounds)
        result.index_copy_(0, places, pixels)
    return result


def _resize_by_kernels(images: PackedImages, crops: Crops, size: int, cubic: bool) -> Tensor:
    regions, device = crops.regions, images.line.device
    heights = regions[:, 3]
    first_rows = 3 * (np.cumsum(heights) - heights)
    columns = (  # as kernels.FIELDS
        _first_pixels(images, regions), images.planes, images.sizes[:, 1], regions[:, 2], heights,
        *crops.boxes.T, crops.flips, first_rows,
    )  # fmt: skip
    table = upload(np.stack(columns, axis=1, dtype=np.float64), device)
    lines = torch.empty((3 * int(heights.sum()), size), device=device)
    result = torch.empty((len(regions), 3, size, size), device=device)
    block = {"block_rows": BLOCK_ROWS, "block_columns": BLOCK_COLUMNS}
    channels, blocks = 3 * len(regions), triton.cdiv(size, BLOCK_COLUMNS)
    across = (channels, triton.cdiv(int(heights.max()), BLOCK_ROWS), blocks)
    down = (channels, triton.cdiv(size, BLOCK_ROWS), blocks)
    with torch.cuda.device_of(result):
        kernels.resize_across[across](images.line, lines, table, size, cubic=cubic, **block)
        kernels.resize_down[down](lines, result, table, size, cubic=cubic, **block)
    return result


def _first_pixels(images: PackedImages, regions: np.ndarray) -> np.ndarray:
    """(n,) int64, the place in the line of each region's first pixel."""
    return images.starts + regions[:, 1] * images.sizes[:, 1] + regions[:, 0]


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


def _cut(images: PackedImages, regions: np.ndarray, rows: np.ndarray) -> Tensor:
    """Return (m, 3, H, W) uint8: a region of each of m images in the upper left, else any pixels.

    Every row of a region is a window of the line of all pixels: one launch copies all windows,
    where copying image by image would take one each.

    regions: (n, 4) [left, top, width, height] of all images. rows: (m,), which images; H and W
        are the largest of theirs.
    """
    line, device = images.line, images.line.device
    width, height = regions[rows, 2:].max(0).tolist()
    windows = line.as_strided((len(line) - width + 1, width), (1, 1))

    starts = _first_pixels(images, regions)
    numbers = np.stack([starts, images.planes, images.sizes[:, 1], regions[:, 3] - 1])[:, rows]
    start, plane, stride, last = upload(numbers, device)[:, :, None, None]
    y = torch.arange(height, device=device)[:, None].minimum(last)
    places = start + y * stride + torch.arange(3, device=device) * plane
    return windows[places].permute(0, 2, 1, 3)
