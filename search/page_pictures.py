"""Pictures that the page takes and shows: small copies of indexed images, and checks of uploads."""

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from data.faults import shown
from data.image_file import image_size, read_image
from search.coder import picture_path
from search.store import Index
from utils.errors import UserError

SIDES = {"small": 256, "large": 1024}  # pixels, at most
LOSSLESS = 64  # pixels a side, up to which a small copy keeps every pixel
QUALITY = 85
CACHE_BYTES = 64 << 20
MAX_PIXELS = 50_000_000  # of a picture that is read
LIMIT = f"up to {MAX_PIXELS // 1_000_000} million pixels"
# What cameras, browsers and screens make; Pillow reads more, which nobody drops on a page.
WANTED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
Image.init()
FORMATS = tuple(kind for kind in WANTED if kind in Image.OPEN)  # AVIF not in every Pillow


@dataclass(frozen=True)
class Encoded:
    """A picture as the browser gets it."""

    content: bytes
    kind: str


class Pictures:
    """Small copies of an index's images, made when they are asked for; the last ones are kept.

    A picture is served when it is an image file in the index's image folder or one of `also`,
    wherever symbolic links lead, or lies where its row says by an absolute path that no link
    leads away from. What is served is made anew from the pixels, never a file's own bytes.

    Args:
        index: whose.
        also: more folders that pictures may lie in.
        cache_bytes: of small copies that are kept.
    """

    def __init__(
        self, index: Index, also: Sequence[Path] = (), cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.index = index
        root = index.coding.image_root
        self.folders = [folder.resolve() for folder in (*([Path(root)] if root else []), *also)]
        self.cache_bytes = cache_bytes
        self.cache: OrderedDict[tuple[int, str], Encoded] = OrderedDict()
        self.cached = 0
        self.lock = threading.Lock()

    def get(self, item: int, size: str) -> Encoded:
        """The small (or 'large') copy of an image.

        Raises:
            UserError: there is no such id, or no picture that may be shown.
        """
        with self.lock:
            if (item, size) in self.cache:
                self.cache.move_to_end((item, size))
                return self.cache[item, size]
        found = small_copy(self.path(item), SIDES[size])
        with self.lock:
            if (item, size) not in self.cache:
                self.cache[item, size] = found
                self.cached += len(found.content)
            while self.cached > self.cache_bytes and self.cache:
                self.cached -= len(self.cache.popitem(last=False)[1].content)
        return found

    def path(self, item: int) -> Path:
        """The file of an image.

        Raises:
            UserError: there is no such id, or no file that may be shown.
        """
        (row,) = self.index.rows([item]).to_pylist()
        stated = picture_path(self.index, row["path"])
        if stated is None:
            raise UserError(
                "the index does not know where its pictures lie; it was built from codes"
            )
        try:
            found = stated.resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # gone; a NUL in it; links in a circle
            raise UserError(f"the picture of image {item} is no longer where it was") from None
        if any(found.is_relative_to(folder) for folder in self.folders):
            return found
        if Path(row["path"]).is_absolute() and found == stated:
            return found
        raise UserError(
            f"the picture of image {item} lies outside of the index's folder of images; "
            "start the page with --also FOLDER to show it"
        )


def small_copy(path: Path, side: int) -> Encoded:
    """A picture of at most `side` pixels a side, upright, on white.

    Raises:
        UserError: it cannot be read, or is too large.
    """
    try:
        _check_pixels(path)
        image = read_image(path)
    except UserError as error:
        raise UserError(reason(error, path)) from None
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    if max(image.size) <= LOSSLESS:
        image.save(stream, "PNG")
        return Encoded(stream.getvalue(), "image/png")
    image.save(stream, "JPEG", quality=QUALITY)
    return Encoded(stream.getvalue(), "image/jpeg")


def check_upload(path: Path) -> None:
    """Refuse, by its first bytes alone, a file that is no picture or has too many pixels.

    Raises:
        UserError: why.
    """
    try:
        with Image.open(path, formats=FORMATS):
            pass
    except UnidentifiedImageError:
        raise UserError(f"this is no picture that the page takes: {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise UserError(f"this picture is too large; the page reads {LIMIT}") from None
    except Exception as error:  # of a hostile file Pillow's parsers raise errors of every kind
        said = shown(" ".join(str(error).split())) or type(error).__name__
        raise UserError(f"this picture cannot be read ({said})") from None
    try:
        _check_pixels(path)
    except UserError as error:
        raise UserError(reason(error, path)) from None


def reason(error: UserError, path: Path) -> str:
    """Why a picture cannot be read, without where it lies."""
    return str(error).replace(f"image {shown(path)}", "this picture").split("; restore or")[0]


def _check_pixels(path: Path) -> None:
    width, height = image_size(path)
    if width * height > MAX_PIXELS:
        raise UserError(f"this picture has {width} x {height} pixels; the page reads {LIMIT}")
