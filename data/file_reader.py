"""What worker processes do: read image files, and decode those that the device does not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.augment import Augmentation
from data.crops import Crop, Crops, centre_crop, crop_image, stack_crops, training_crop
from data.jpeg import read_plain_jpeg
from data.jpeg_files import JpegFiles, join_jpegs
from data.source import Source
from utils.errors import UserError


class EncodedImage(NamedTuple):
    """A JPEG file that the device is to decode, and what to cut out of it."""

    image_index: int
    content: bytes
    size: tuple[int, int]  # width, height
    crop: Crop


@dataclass(frozen=True)
class RawBatch:
    """A batch as it travels between processes: two blocks of shared memory, and small things.

    pixels: (m, 3, S, S) uint8, images that are cropped and resized already.
    pixel_rows: (m,) int64, their places in the batch.
    files: the JPEG files of the other k images.
    indices, crops: of each of these: image index (k,) int64, what to cut out.
    file_rows: (k,) int64, their places in the batch.
    """

    pixels: Tensor
    pixel_rows: np.ndarray
    files: JpegFiles
    indices: np.ndarray
    crops: Crops
    file_rows: np.ndarray

    def pin_memory(self) -> "RawBatch":
        """The batch with its blocks in pinned memory; the DataLoader's thread asks for it."""
        files = self.files._replace(content=self.files.content.pin_memory())
        return replace(self, pixels=self.pixels.pin_memory(), files=files)


class FileReader(Dataset):
    """Items by (index, place in the epoch), drawn from the seed and the place alone.

    keep_jpegs: give JPEG files that a GPU decodes as they are.
    """

    def __init__(
        self,
        source: Source,
        augmentation: Augmentation,
        training: bool,
        seed: int,
        keep_jpegs: bool,
    ) -> None:
        self.source = source
        self.augmentation = augmentation
        self.training = training
        self.seed = seed
        self.keep_jpegs = keep_jpegs

    def __getitem__(self, key: tuple[int, int]) -> EncodedImage | np.ndarray | UserError:
        """Return a JPEG file, or (3, S, S) uint8 pixels, or the error that reading gave."""
        index, place = key
        jpeg = read_plain_jpeg(self.source.path(index)) if self.keep_jpegs else None
        if jpeg is not None:
            content, size = jpeg
            return EncodedImage(index, content, size, self._crop(size, place))
        try:
            image = self.source.read(index)
        except UserError as error:
            # Returned, since a worker's exception would come out wrapped in its traceback.
            return error
        return crop_image(image, self._crop(image.size, place), self.augmentation)

    def _crop(self, size: tuple[int, int], place: int) -> Crop:
        if self.training:
            return training_crop(*size, self.augmentation, self.seed, place)
        return centre_crop(*size, self.augmentation)


def collate(items: Sequence[EncodedImage | np.ndarray | UserError]) -> RawBatch | UserError:
    """Pack the items of one batch, or return the first error among them."""
    for item in items:
        if isinstance(item, UserError):
            return item
    rows = [row for row, item in enumerate(items) if isinstance(item, EncodedImage)]
    files = [item for item in items if isinstance(item, EncodedImage)]
    images = {row: item for row, item in enumerate(items) if isinstance(item, np.ndarray)}
    pixels = np.stack(list(images.values())) if images else np.empty((0, 3, 1, 1), dtype=np.uint8)
    return RawBatch(
        pixels=torch.from_numpy(pixels),
        pixel_rows=np.array(list(images), dtype=np.int64),
        files=join_jpegs([file.content for file in files], [file.size for file in files]),
        indices=np.array([file.image_index for file in files], dtype=np.int64),
        crops=stack_crops([file.crop for file in files]),
        file_rows=np.array(rows, dtype=np.int64),
    )
