"""JPEG files as a GPU decodes them: which ones, and many at once."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, JpegImagePlugin
from torch import Tensor

from data.jpeg_files import MAX_SIDE, JpegFiles, PackedImages, join_jpegs, pack_images
from data.nvjpeg import jpeg_engines
from utils.errors import UserError

logger = logging.getLogger("long_tail_hashing")

MIN_SIDE = 16  # pixels, a block of 4:2:0: less costs a CPU nothing
_END = b"\xff\xd9"
_YCBCR = 1  # Adobe's number; 0 is RGB
_COMPONENTS = (1, 2, 3)  # Y, Cb, Cr by JFIF; of other numbers decoders guess
_SAMPLINGS = (0, 1, 2)  # as Pillow counts: 4:4:4, 4:2:2, 4:2:0


def read_plain_jpeg(path: Path) -> tuple[bytes, tuple[int, int]] | None:
    """Return a JPEG file's bytes and (width, height), None if Pillow should decode the file.

    Plain are complete, upright files of YCbCr pixels, of sides from MIN_SIDE to MAX_SIDE, that
    every decoder takes for the same colours. Progressive ones are not: no hardware decodes them,
    and workers do so in parallel; nor are rare subsamplings.
    Grey ones are not: nvJPEG on an H200 (torchvision 0.26) was seen to lose the lower rows of one
    among colour images.
    """
    with suppress(Exception):  # of many kinds; Pillow will say what is wrong with the file
        content = path.read_bytes()
        with Image.open(BytesIO(content)) as image:
            if content.endswith(_END) and _is_plain(image):
                return content, image.size
    return None


def _is_plain(image: Image.Image) -> bool:
    """Judge the header alone; the pixels are not decoded."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or image.format != "JPEG":
        return False
    if image.mode != "RGB" or max(image.size) > MAX_SIDE or min(image.size) < MIN_SIDE:
        return False
    if image.info.get("progressive") or image.info.get("adobe_transform", _YCBCR) != _YCBCR:
        return False
    if tuple(component for component, *_ in image.layer) != _COMPONENTS:
        return False
    if JpegImagePlugin.get_sampling(image) not in _SAMPLINGS:
        return False
    with suppress(Exception):  # of many kinds; who cannot read a broken EXIF block ignores it
        return image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    return True


def decode_jpegs(
    files: JpegFiles, device: torch.device, fallback: Callable[[int], Image.Image]
) -> PackedImages:
    """Return the files' pixels on the device; by halves, where they are refused as a whole.

    fallback: reads the file of a position otherwise, or raises; asked for those files alone that
        the device's decoder refuses.
    """
    with _refusals():
        return _decode(files, device)
    count = len(files.lengths)
    if count == 1:
        return pack_images([_read_otherwise(files, fallback)], device)
    images: list[Tensor] = []
    for first, last in ((0, count // 2), (count // 2, count)):
        half = decode_jpegs(files.part(first, last), device, lambda i, at=first: fallback(at + i))
        images += half.split()
    return pack_images(images, device)


@contextmanager
def _refusals() -> Iterator[None]:
    """Go on behind the block when a decoder refuses a file, but not when memory runs out."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        pass


def _decode(files: JpegFiles, device: torch.device) -> PackedImages:
    engines = jpeg_engines(device)
    if engines:
        with _refusals():
            return engines.decode(files)
    # Here, so that a torchvision without decoders costs no more than the GPU's.
    from torchvision.io import ImageReadMode, decode_jpeg

    parts = list(files.content.split(files.lengths.tolist()))
    images = pack_images(decode_jpeg(parts, mode=ImageReadMode.RGB, device=device), device)
    if not np.array_equal(images.sizes, files.sizes):
        raise RuntimeError("torchvision decodes images of other sizes than their headers gave")
    return images


def _read_otherwise(file: JpegFiles, fallback: Callable[[int], Image.Image]) -> Tensor:
    pixels = np.asarray(fallback(0)).transpose(2, 0, 1)
    if not np.array_equal(pixels.shape[1:], file.sizes[0]):
        raise UserError(
            f"an image of {_by(file.sizes[0])} pixels has {_by(pixels.shape[1:])} when it is "
            "read again; leave files as they are while a run reads them"
        )
    return torch.from_numpy(np.ascontiguousarray(pixels))


def _by(size: Sequence[int]) -> str:
    height, width = size
    return f"{width} x {height}"


@lru_cache(maxsize=16)
def decoder_error(device: torch.device) -> str | None:
    """Return why the device cannot decode JPEG files, None if it can; warns once."""
    stream = BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "JPEG")
    try:
        _decode(join_jpegs([stream.getvalue()], [(64, 64)]), device)
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        logger.warning("JPEG files cannot be decoded on %s: %s", device, reason)
        return reason
    return None
