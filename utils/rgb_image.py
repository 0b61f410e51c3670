"""Any image that Pillow opens, as 8-bit RGB."""

import os
from contextlib import suppress

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_TOLD_BY_PREFIX = ("JPEG", "PNG", "WEBP")


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Open an image file of any format that Pillow reads.

    The common formats are tried first: some of the others cannot be told by a file's first bytes,
    and trying them all takes longer than decoding a small image.

    Raises:
        UnidentifiedImageError: it is no image of a format that Pillow reads.
        others, of many kinds: the file is missing, broken or absurdly large.
    """
    try:
        return Image.open(path, formats=_TOLD_BY_PREFIX)
    except UnidentifiedImageError:
        return Image.open(path)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an opened image as a viewer shows it: upright, on white, in 8-bit RGB.

    EXIF's orientation is applied, transparency is laid over white, and of 16 bits the upper 8
    are kept, as Pillow does with 16-bit colour. An RGB image comes back itself.

    Raises:
        ValueError: pixels are floating point or above 16 bits, whose white is unknown.
        others, of many kinds: the file cannot be decoded.
    """
    image.load()
    with suppress(Exception):  # of many kinds; a broken EXIF block must not hide the pixels
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F":
        raise ValueError("its pixels are floating point, expected 8 or 16 bits")
    if image.mode.startswith("I"):
        return _upper_bits(image).convert("RGB")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, opaque).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _upper_bits(image: Image.Image) -> Image.Image:
    """Return 16-bit grey as 8-bit grey; Pillow's own conversion would clip it at 255."""
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > 0xFFFF):
        raise ValueError(
            f"its pixels range from {values.min()} to {values.max()}, expected 8 or 16 bits"
        )
    return Image.fromarray((values >> 8).astype(np.uint8))
