"""Many JPEG files as one line of bytes, and many images of different sizes as one of pixels.

A batch crosses from the workers to a GPU so: what is done with each image by itself in Python would
take longer than its decoding.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

MAX_SIDE = 2048  # pixels; a crop of a larger image would take much of the device's memory


class JpegFiles(NamedTuple):
    """JPEG files, one after another.

    content: (bytes,) uint8 on the CPU.
    lengths: (n,) int64, bytes of each.
    sizes: (n, 2) int64, [height, width] in pixels, as their headers say.
    """

    content: Tensor
    lengths: np.ndarray
    sizes: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """(n,) int64, the place of each file's first byte."""
        return np.cumsum(self.lengths) - self.lengths

    def part(self, first: int, last: int) -> "JpegFiles":
        """The files from one to before another."""
        ends = np.concatenate([[0], np.cumsum(self.lengths)])
        content = self.content[ends[first] : ends[last]]
        return JpegFiles(content, self.lengths[first:last], self.sizes[first:last])

    def pieces(self, most: int) -> list[tuple[int, int]]:
        """Parts (first, last) of at most `most` bytes of pixels each, but for single files."""
        found: list[tuple[int, int]] = []
        first = held = 0
        for number, pixels in enumerate((3 * self.sizes.prod(1)).tolist()):
            if number > first and held + pixels > most:
                found.append((first, number))
                first, held = number, 0
            held += pixels
        return [*found, (first, len(self.lengths))] if len(self.lengths) else []


def join_jpegs(contents: Sequence[bytes], sizes: Sequence[tuple[int, int]]) -> JpegFiles:
    """Return files of these bytes and sizes (width, height) in memory of their own."""
    line = np.frombuffer(bytearray().join(contents), dtype=np.uint8)
    return JpegFiles(
        torch.from_numpy(line),
        np.array([len(content) for content in contents], dtype=np.int64),
        np.array(sizes, dtype=np.int64).reshape(-1, 2)[:, ::-1],
    )


class PackedImages(NamedTuple):
    """Images, one after another, each (3, H, W) uint8.

    line: their pixels, (bytes,) uint8, then at least MAX_SIDE bytes more, of any values: whoever
        reads as many pixels of every row as the widest has stays within it.
    sizes: (n, 2) int64, [height, width] of each.
    """

    line: Tensor
    sizes: np.ndarray

    @property
    def planes(self) -> np.ndarray:
        """(n,) int64, pixels of one channel of each image."""
        return self.sizes.prod(1)

    @property
    def starts(self) -> np.ndarray:
        """(n,) int64, the place of each image's first pixel."""
        return np.cumsum(3 * self.planes) - 3 * self.planes

    def split(self) -> list[Tensor]:
        """Each image by itself, (3, H, W)."""
        places = zip(self.starts.tolist(), self.sizes.tolist(), strict=True)
        return [
            self.line[start : start + 3 * height * width].view(3, height, width)
            for start, (height, width) in places
        ]


def empty_line(sizes: np.ndarray, device: torch.device) -> Tensor:
    """Memory for the pixels of images of these (n, 2) sizes, of any values."""
    return torch.empty(3 * int(sizes.prod(1).sum()) + MAX_SIDE, dtype=torch.uint8, device=device)


def pack_images(images: Sequence[Tensor], device: torch.device) -> PackedImages:
    """Join images, each (3, H, W) uint8 on any device, into one line on `device`."""
    sizes = np.array([image.shape[1:] for image in images], dtype=np.int64).reshape(-1, 2)
    line = empty_line(sizes, device)
    torch.cat([image.reshape(-1).to(device) for image in images], out=line[:-MAX_SIDE])
    return PackedImages(line, sizes)
