"""Pixels by image index: small images whole on the device, large ones read from their files."""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import PIL
import torch
from torch import Tensor

from data.augment import Augmentation, evaluation_batch, train_batch
from data.content import cache_folders, file_stats, hash_bytes, writable_folder
from data.decoding import decode_files
from data.feature_rows import FeatureRows, check_finite
from data.file_images import DECODERS, Decoder, FileImages
from data.grouping import AT_ONCE, group_batches
from data.image_file import DECODING, image_size
from data.prefetch import one_ahead
from data.source import Source
from data.to_device import upload, with_index
from utils.atomic_file import atomic_path
from utils.cores import available_cores
from utils.errors import UserError

logger = logging.getLogger("long_tail_hashing")

AUTO_CACHE_LIMIT = 96  # pixels; above it a whole dataset may not fit the device
_CHUNK = 512  # images uploaded at a time


class ArrayImages:
    """All images as one uint8 array, which lives on the device whole.

    array: (n, H, W, 3) uint8, perhaps a read-only memory map.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self._resident: Tensor | None = None

    def digests(self, indices: np.ndarray) -> list[bytes]:
        """Return a digest of each image's pixels; equal pixels have equal digests."""
        return [self._digests[index] for index in indices]

    @cached_property
    def _digests(self) -> list[bytes]:
        pixels = np.ascontiguousarray(self.array).data.cast("B")
        size = self.array[0].size
        return [hash_bytes(pixels[end - size : end]) for end in range(size, len(pixels) + 1, size)]

    def resident(self, device: torch.device) -> Tensor:
        """Return (n, 3, H, W) uint8 on the device, uploaded at the first call."""
        device = with_index(device)
        if self._resident is None or self._resident.device != device:
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
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (B, 3, S, S) float32 normalised images and their (B,) int64 indices.

        Both are on the device; neither is waited for. Consecutive small batches are made at once,
        on a GPU while it works on those before.

        training: random crops and flips, drawn on the device from `seed` and depending on
            `index_batches` beside; else the whole image.
        num_workers: not used, there being nothing to read.
        """
        if not index_batches:
            return
        pixels = self.resident(device)
        generator = torch.Generator(pixels.device).manual_seed(seed)
        indices = upload(np.concatenate(index_batches), pixels.device)
        parts = indices.split([len(batch) for batch in index_batches])
        groups = list(group_batches(parts, AT_ONCE if pixels.is_cuda else 1))

        def make(group: list[Tensor]) -> Tensor:
            batch = pixels[torch.cat(group)]
            if training:
                return train_batch(batch, augmentation, generator)
            return evaluation_batch(batch, augmentation)

        made: Iterator[Tensor] = map(make, groups)
        if pixels.is_cuda:
            made = one_ahead(made, pixels.device)
        for images, group in zip(made, groups, strict=True):
            yield from zip(images.split([len(part) for part in group]), group, strict=True)


Images = ArrayImages | FileImages | FeatureRows


def open_images(
    source: Source,
    cache_size: int | Literal["auto"] | None = "auto",
    decode: Decoder = "auto",
) -> Images:
    """Return the pixels of a source, or its features, in the form that suits them.

    cache_size: side in pixels of a square array into which all images are decoded once, kept in
        the folder `.lth_cache` beside them; an image of another size is resized by its shorter
        side and centre-cropped. None reads the files again each time. 'auto' looks at the first
        image of each class: if the longest side among them is at most 96, that side, else None.
        A source that is held in memory is used as it is.
    decode: where images that are read each time are decoded: by 'cpu', JPEG files by 'gpu', or
        'auto', the GPU where batches are made on one. Cached images do not need it.

    Raises:
        UserError: cache_size or decode is none of these, an image cannot be read, or features
            are not finite.
    """
    if decode not in DECODERS:
        raise UserError(f"decode is {decode!r}; expected one of {', '.join(DECODERS)}")
    if cache_size not in ("auto", None) and (not isinstance(cache_size, int) or cache_size < 1):
        raise UserError(f"cache_size is {cache_size!r}; expected pixels, 'auto' or None")
    if source.features is not None:
        check_finite(source)
        return FeatureRows(source.features)
    if source.arrays is not None:
        return ArrayImages(source.arrays)
    if cache_size == "auto":
        longest = _longest_first_side(source)
        cache_size = longest if longest <= AUTO_CACHE_LIMIT else None
    if cache_size is None:
        return FileImages(source, decode)
    return ArrayImages(_cached_array(source, cache_size))


def _longest_first_side(source: Source) -> int:
    groups = source.class_indices(np.arange(len(source)))
    firsts = [int(group[0]) for group in groups if len(group)]
    return max((max(image_size(source.path(i), source.place(i))) for i in firsts), default=0)


def _cached_array(source: Source, size: int) -> np.ndarray:
    """Return (n, size, size, 3) uint8, decoded now or by an earlier run over the same files.

    Files are the same if their names, sizes and times are; and so must be what decodes them.
    """
    assert source.root is not None
    shape = (len(source), size, size, 3)
    name = f"{_files_key(source)}-{size}.npy"
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
        _decode_into(array, source)
        return array
    with atomic_path(target / name) as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        _reserve(Path(temporary))
        _decode_into(array, source)
        array.flush()
        del array
    return np.load(target / name, mmap_mode="r")


def _reserve(path: Path) -> None:
    """Take a mapped file's space now: a disk that fills up under a map ends the process.

    Raises:
        UserError: if there is too little.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            raise UserError(
                f"the cache of decoded images in {path.parent} cannot have its "
                f"{path.stat().st_size / 1e6:,.0f} MB ({error.strerror}); free space there"
            ) from error


def _files_key(source: Source) -> str:
    stats = file_stats(source, np.arange(len(source)))
    decoder = [DECODING, PIL.__version__]
    return hash_bytes(json.dumps([decoder, source.image_names, stats]).encode()).hex()


def _decode_into(array: np.ndarray, source: Source) -> None:
    paths = [os.path.join(str(source.root), name) for name in source.image_names]  # noqa: PTH118
    decode_files(array, paths, available_cores())
