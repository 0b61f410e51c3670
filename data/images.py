"""Pixels by image index: kept whole on the device, or read from files by worker processes."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from data.augment import Augmentation, evaluation_batch, normalise, random_boxes, train_batch
from data.color_jitter import color_jitter
from data.content import cache_folders, file_digests, hash_bytes, writable_folder
from data.source import Source
from utils.atomic_file import atomic_path
from utils.errors import UserError
from utils.rgb_image import READ_ERRORS

logger = logging.getLogger("long_tail_hashing")

AUTO_CACHE_LIMIT = 96  # pixels; above it a whole dataset may not fit the device
_CHUNK = 512  # images decoded or uploaded at a time

Batches = Iterator[tuple[Tensor, np.ndarray]]


class ArrayImages:
    """All images as one uint8 array, which lives on the device whole.

    array: (n, H, W, 3) uint8, perhaps a read-only memory map.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self._resident: Tensor | None = None

    def digests(self, indices: np.ndarray) -> list[bytes]:
        """Return a digest of each image's pixels; equal pixels have equal digests."""
        return [hash_bytes(np.ascontiguousarray(self.array[index]).data) for index in indices]

    def resident(self, device: torch.device) -> Tensor:
        """Return (n, 3, H, W) uint8 on the device, uploaded at the first call."""
        device = torch.device(device)
        if self._resident is None or self._resident.device != _with_index(device):
            count, height, width, channels = self.array.shape
            pixels = torch.empty((count, channels, height, width), dtype=torch.uint8, device=device)
            for start in range(0, count, _CHUNK):
                chunk = np.array(self.array[start : start + _CHUNK])
                pixels[start : start + _CHUNK] = torch.from_numpy(chunk).permute(0, 3, 1, 2)
            self._resident = pixels
        return self._resident

    def batches(
        self,
        index_batches: Sequence[np.ndarray],
        augmentation: Augmentation,
        *,
        training: bool,
        seed: int,
        device: torch.device,
        num_workers: int = 0,
    ) -> Batches:
        """Yield ((B, 3, S, S) float32 normalised images on the device, their indices).

        training: random crops and flips, drawn on the device from `seed`; else the whole image.
        num_workers: not used, there being nothing to read.
        """
        pixels = self.resident(device)
        generator = torch.Generator(pixels.device).manual_seed(seed)
        for indices in index_batches:
            batch = pixels[torch.from_numpy(indices).to(pixels.device, non_blocking=True)]
            if training:
                yield train_batch(batch, augmentation, generator), indices
            else:
                yield evaluation_batch(batch, augmentation), indices


class FileImages:
    """Images read from their files when they are needed."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def digests(self, indices: np.ndarray) -> list[bytes]:
        """Return a digest of each image's file.

        Raises:
            UserError: a file cannot be read.
        """
        return file_digests(self.source, indices)

    def batches(
        self,
        index_batches: Sequence[np.ndarray],
        augmentation: Augmentation,
        *,
        training: bool,
        seed: int,
        device: torch.device,
        num_workers: int = 0,
    ) -> Batches:
        """Yield ((B, 3, S, S) float32 normalised images on the device, their indices).

        training: random crop, flip and colours; else the shorter side is resized to
            S / crop_fraction and the centre taken. What is drawn depends on `seed` and an
            image's place in `index_batches`, not on the number of workers.
        num_workers: processes that read and decode; 0 reads in this one.

        Raises:
            UserError: an image cannot be read; names its full path.
        """
        device = torch.device(device)
        loader = DataLoader(
            _FileDataset(self.source, augmentation, training, seed),
            batch_sampler=_numbered(index_batches),
            num_workers=num_workers,
            collate_fn=_collate,
            pin_memory=device.type == "cuda",
        )
        generator = torch.Generator(device).manual_seed(seed)
        for indices, batch in zip(index_batches, loader, strict=True):
            if isinstance(batch, UserError):
                raise batch
            pixels = batch.to(device, non_blocking=True).float()
            if training:
                pixels = color_jitter(pixels, augmentation.color_jitter, generator)
            yield normalise(pixels, augmentation), indices


def open_images(
    source: Source, cache_size: int | Literal["auto"] | None = "auto"
) -> ArrayImages | FileImages:
    """Return the pixels of a source in the form that suits them.

    cache_size: side in pixels of a square array into which all images are decoded once, kept in
        the folder `.lth_cache` beside them; an image of another size is resized by its shorter
        side and centre-cropped. None reads the files again each time. 'auto' looks at the first
        image of each class: if the longest side among them is at most 96, that side, else None.
        A source that is held in memory is used as it is.

    Raises:
        UserError: cache_size is neither of these, or an image cannot be read.
    """
    if cache_size not in ("auto", None) and (not isinstance(cache_size, int) or cache_size < 1):
        raise UserError(f"cache_size is {cache_size!r}; expected pixels, 'auto' or None")
    if source.arrays is not None:
        return ArrayImages(source.arrays)
    if cache_size == "auto":
        longest = _longest_first_side(source)
        cache_size = longest if longest <= AUTO_CACHE_LIMIT else None
    if cache_size is None:
        return FileImages(source)
    return ArrayImages(_cached_array(source, cache_size))


def _with_index(device: torch.device) -> torch.device:
    """Return cuda:0 for cuda: tensors carry the index of their device."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _longest_first_side(source: Source) -> int:
    groups = source.class_indices(np.arange(len(source)))
    return max(
        (max(_open_size(source.path(group[0]))) for group in groups if len(group)), default=0
    )


def _open_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.size
    except READ_ERRORS as error:
        reason = " ".join(str(error).split())
        raise UserError(f"image {path} cannot be read ({reason}); restore or remove it") from error


def _cached_array(source: Source, size: int) -> np.ndarray:
    """Return (n, size, size, 3) uint8, decoded now or by an earlier run over the same files."""
    assert source.root is not None
    digests = file_digests(source, np.arange(len(source)))
    shape = (len(source), size, size, 3)
    name = f"{hash_bytes(b''.join(digests)).hex()}-{size}.npy"
    folders = cache_folders(source.root)
    for folder in folders:
        try:
            array = np.load(folder / name, mmap_mode="r")
        except (OSError, ValueError, EOFError):  # absent or spoilt
            continue
        if array.shape == shape and array.dtype == np.uint8:
            return array

    target = writable_folder(folders)
    if target is None:
        logger.warning("no cache folder can be written; the images are decoded into memory")
        array = np.empty(shape, dtype=np.uint8)
        _decode_into(array, source, size)
        return array
    with atomic_path(target / name) as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        _decode_into(array, source, size)
        array.flush()
        del array
    return np.load(target / name, mmap_mode="r")


def _decode_into(array: np.ndarray, source: Source, size: int) -> None:
    """Decode all images into the array's rows, in threads: Pillow decodes outside the lock."""

    def decode(start: int) -> int:
        stop = min(start + _CHUNK, len(source))
        for index in range(start, stop):
            image = source.read(index)
            if image.size != (size, size):
                image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
            array[index] = np.asarray(image)
        return stop - start

    with ThreadPoolExecutor() as pool, _bar(len(source)) as bar:
        for done in pool.map(decode, range(0, len(source), _CHUNK)):
            bar.update(done)


def _bar(total: int) -> tqdm:
    return tqdm(desc="decoding images", total=total, disable=None)  # None: only on a terminal


class _FileDataset(Dataset):
    """Items by (index, place): the image's (3, S, S) uint8 pixels, or the error it gave."""

    def __init__(
        self, source: Source, augmentation: Augmentation, training: bool, seed: int
    ) -> None:
        self.source = source
        self.augmentation = augmentation
        self.training = training
        self.seed = seed
        self.resample = Image.Resampling[augmentation.interpolation.upper()]

    def __getitem__(self, key: tuple[int, int]) -> Tensor | UserError:
        index, place = key
        try:
            image = self.source.read(index)
        except UserError as error:
            # Returned, since a worker's exception would come out wrapped in its traceback.
            return error
        image = self._train_crop(image, place) if self.training else self._centre_crop(image)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def _train_crop(self, image: Image.Image, place: int) -> Image.Image:
        generator = torch.Generator().manual_seed(_mix(self.seed, place))
        width, height = image.size
        box = random_boxes(1, height, width, self.augmentation, generator)[0].tolist()
        left, top, crop_width, crop_height = box
        size = self.augmentation.image_size
        image = image.crop((left, top, left + crop_width, top + crop_height))
        image = image.resize((size, size), self.resample)
        if self.augmentation.flip and torch.rand((), generator=generator) < 0.5:
            image = ImageOps.mirror(image)
        return image

    def _centre_crop(self, image: Image.Image) -> Image.Image:
        size = self.augmentation.image_size
        factor = round(size / self.augmentation.crop_fraction) / min(image.size)
        width, height = (max(size, round(side * factor)) for side in image.size)
        image = image.resize((width, height), self.resample)
        left, top = (width - size) // 2, (height - size) // 2
        return image.crop((left, top, left + size, top + size))


def _numbered(index_batches: Sequence[np.ndarray]) -> list[list[tuple[int, int]]]:
    """Give each image of each batch its place in the epoch."""
    places = iter(range(sum(len(indices) for indices in index_batches)))
    return [[(int(index), next(places)) for index in indices] for indices in index_batches]


def _collate(items: Iterable[Tensor | UserError]) -> Tensor | UserError:
    tensors = []
    for item in items:
        if isinstance(item, UserError):
            return item
        tensors.append(item)
    return torch.stack(tensors)


def _mix(seed: int, place: int) -> int:
    return int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
