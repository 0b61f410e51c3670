"""The one place that turns an image file into pixels: as a viewer shows it, or refused by name."""

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from PIL import Image, UnidentifiedImageError

from data.deep_grey import eight_bits
from data.faults import shown
from utils.errors import UserError
from utils.rgb_image import open_image, to_rgb

# Raise it whenever `read_image` comes to other pixels, so that caches do not serve the old ones.
DECODING = 2
PIXEL_LIMIT_VARIABLE = "LTH_MAX_PIXELS"

_DRAWINGS = ("EPS", "WMF")  # Pillow has other programs draw these
# Pillow warns without the file's name; what keeps it from the pixels it raises.
warnings.filterwarnings("ignore", module="PIL")


def read_image(path: str | os.PathLike[str], place: str | None = None) -> Image.Image:
    """Return the image of a file in 8-bit RGB, as a viewer shows it.

    The content decides the format, not the name. EXIF's orientation is applied, transparency is
    laid over white, of 16 bits the upper 8 are kept, and of an animation the first picture.

    place: the file and line that list the image, for messages.

    Raises:
        UserError: the file is missing, cannot be decoded, or has more pixels than
            $LTH_MAX_PIXELS (by default Pillow's limit of 178,956,970); names its full path.
    """
    with _opened(path, place) as image:
        return to_rgb(eight_bits(image))


def check_image(path: str | os.PathLike[str], place: str | None = None) -> None:
    """Raise the UserError that `read_image` would, in less time.

    A JPEG file is decoded to an eighth of its size, for which all of its data are read too.
    """
    with _opened(path, place) as image:
        image.draft(None, (1, 1))
        to_rgb(eight_bits(image))


def image_size(path: str | os.PathLike[str], place: str | None = None) -> tuple[int, int]:
    """Return (width, height) as the file's header has them.

    Raises:
        UserError: the file is missing or is no image.
    """
    with _opened(path, place) as image:
        return image.size


@cache
def readable_extensions() -> frozenset[str]:
    """Return the ends of the names, in lower case, of files that Pillow may read: '.png', ..."""
    extensions = Image.registered_extensions()
    return frozenset(extension for extension, kind in extensions.items() if kind in Image.OPEN)


def unreadable(
    path: str | os.PathLike[str], error: BaseException, place: str | None = None
) -> UserError:
    """Return the one line for an image that cannot be read: where it is listed, file and reason."""
    remedy = "restore or remove the file"
    if isinstance(error, Image.DecompressionBombError):
        remedy = f"make it smaller, or set {PIXEL_LIMIT_VARIABLE} to what it has"
    listed = f"{shown(place)}: " if place else ""
    return UserError(f"{listed}image {shown(path)} cannot be read ({_reason(error)}); {remedy}")


@contextmanager
def _opened(path: str | os.PathLike[str], place: str | None) -> Iterator[Image.Image]:
    """Open an image file; whatever goes wrong with it is a UserError."""
    _limit_pixels()
    try:
        found = os.stat(path)  # noqa: PTH116
        if not stat.S_ISREG(found.st_mode):  # the reading of a pipe might never end
            raise OSError("it is no regular file")
        if not found.st_size:
            raise OSError("the file is empty")
        with open_image(path) as image:
            if image.format in _DRAWINGS:
                raise ValueError(f"it is a drawing ({image.format}), expected a picture of pixels")
            yield image
    except Exception as error:  # of a broken file Pillow's parsers raise errors of every kind
        raise unreadable(path, error, place) from error


@cache
def _limit_pixels() -> None:
    """Give Pillow the user's limit of pixels, if there is one."""
    value = os.environ.get(PIXEL_LIMIT_VARIABLE)
    if value is None:
        return
    if not (value.isascii() and value.isdigit() and len(value) < 19 and int(value)):
        raise UserError(
            f"{PIXEL_LIMIT_VARIABLE} is {value!r}; expected the most pixels of an image, from 1"
        )
    Image.MAX_IMAGE_PIXELS = (int(value) + 1) // 2  # Pillow refuses what has more than twice this


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a format that Pillow reads"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return shown(" ".join(str(error).split()) or type(error).__name__)
