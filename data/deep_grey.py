"""Grey images of more than 8 bits a pixel, which Pillow opens as they are stored."""

from contextlib import suppress

import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

_WHITE_IS_ZERO = 0  # of TIFF's photometric interpretation
_SHALLOW = {"L;2": 85, "L;4": 17}  # what Pillow multiplies PNG's greys of 2 and 4 bits by


def eight_bits(image: Image.Image) -> Image.Image:
    """Return an opened image, pixels loaded; grey of 9 to 16 bits as its upper 8.

    Such an image comes back upright, as L, or as LA where one grey is transparent; white is the
    largest value of its bits, or 0 where a TIFF file says so. Any other image comes back itself.

    Raises:
        ValueError: pixels are floating point or of more than 16 bits, whose white is unknown.
        others: the file cannot be decoded.
    """
    rawmode = image.tile[0].args if isinstance(image, PngImageFile) and image.tile else None
    image.load()
    if isinstance(rawmode, str) and rawmode in _SHALLOW and "transparency" in image.info:
        image.info["transparency"] *= _SHALLOW[rawmode]  # Pillow scales the pixels alone
    if not image.mode.startswith("I"):
        return image
    bits, white_is_zero = _tiff_scale(image)
    with suppress(Exception):  # of many kinds; a broken EXIF block must not hide the pixels
        ImageOps.exif_transpose(image, in_place=True)
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError(
            f"its pixels range from {values.min()} to {values.max()}, expected 8 or 16 bits"
        )
    grey = (values >> (bits - 8)).astype(np.uint8)
    found = Image.fromarray(255 - grey if white_is_zero else grey)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        found.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return found


def _tiff_scale(image: Image.Image) -> tuple[int, bool]:
    """Return how many bits a pixel has, 16 unless a TIFF file says less, and if 0 is white."""
    if not isinstance(image, TiffImageFile):
        return 16, False
    bits = image.tag_v2.get(ExifTags.Base.BitsPerSample, (16,))[0]
    white_is_zero = image.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == _WHITE_IS_ZERO
    return (bits if 8 <= bits <= 16 else 16), white_is_zero
