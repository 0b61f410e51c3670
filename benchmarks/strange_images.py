"""Image files of every kind that a folder may hold, and what a viewer shows of each."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

_PNG = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112
_SHORT, _LONG = 3, 4  # types of TIFF's tags
_UPRIGHT = {  # how a viewer turns the stored pixels, by EXIF's orientation
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p),
}


@dataclass(frozen=True)
class StrangeImage:
    """A file.

    pixels: (H, W, 3) uint8 as a viewer shows it; None where there is nothing to show.
    tolerance: levels by which a decoder may differ.
    """

    name: str
    content: bytes
    pixels: np.ndarray | None
    tolerance: int = 1


def strange_images(rng: np.random.Generator) -> list[StrangeImage]:
    """Return one file of each kind, its picture drawn at random."""
    kinds = (_plain, _jpegs, _deep, _tiffs, _transparent, _animated, _turned, _tiny, _no_pictures)
    return [image for kind in kinds for image in kind(rng)]


def picture(rng: np.random.Generator, size: tuple[int, int] | None = None) -> np.ndarray:
    """Return (H, W, 3) uint8 waves, on which decoders of lossy formats agree.

    size: (width, height); by default drawn from 17 to 80.
    """
    width, height = size or rng.integers(17, 81, 2)
    y, x = np.mgrid[:height, :width][..., None] / 20
    steps, starts = rng.uniform(-1, 1, (2, 3)), rng.uniform(0, 6, 3)
    return (128 + 120 * np.sin(x * steps[0] + y * steps[1] + starts)).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    """Return an image as a file of a format."""
    stream = BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(
        stream, kind, **options
    )
    return stream.getvalue()


def on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) pixels laid over white by alpha (H, W), both uint8."""
    share = alpha[..., None] / 255
    return np.rint(pixels * share + 255 * (1 - share)).astype(np.uint8)


def png(pixels: np.ndarray, colour_type: int, transparent: bytes = b"") -> bytes:
    """Return a PNG file of (H, W) or (H, W, channels) uint8 or uint16.

    transparent: content of the chunk tRNS.
    """
    depth = 8 * pixels.dtype.itemsize
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(f">u{depth // 8}"))
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], depth, colour_type, 0, 0, 0)
    hole = _chunk(b"tRNS", transparent) if transparent else b""
    return _PNG + _chunk(b"IHDR", head) + hole + _chunk(b"IDAT", zlib.compress(rows)) + _END


def _chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


_END = _chunk(b"IEND", b"")


def tiff(pixels: np.ndarray, photometric: int, alpha: bool = False) -> bytes:
    """Return an uncompressed TIFF file of (H, W) or (H, W, channels) uint8 or uint16.

    photometric: 0 and 1 are grey, with white 0 or black 0; 2 is RGB; 5 is CMYK.
    """
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    bits = struct.pack(f"<{channels}H", *[8 * pixels.dtype.itemsize] * channels)
    tags = {256: pixels.shape[1], 257: pixels.shape[0], 259: 1, 262: photometric, 277: channels}
    tags |= {278: pixels.shape[0]} | ({338: 2} if alpha else {})
    count = len(tags) + 3
    start = 8 + 2 + 12 * count + 4  # of what the directory points to
    entries = {tag: struct.pack("<HHIHH", tag, _SHORT, 1, value, 0) for tag, value in tags.items()}
    inside = bits.ljust(4, b"\0") if len(bits) <= 4 else struct.pack("<I", start)
    entries[258] = struct.pack("<HHI", 258, _SHORT, channels) + inside
    entries[273] = struct.pack("<HHII", 273, _LONG, 1, start + len(bits))
    entries[279] = struct.pack("<HHII", 279, _LONG, 1, len(data))
    directory = struct.pack("<H", count) + b"".join(entries[tag] for tag in sorted(entries))
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + bits + data


def _plain(rng: np.random.Generator) -> Iterator[StrangeImage]:
    for kind in ("png", "bmp", "tiff", "ppm", "tga", "webp", "pcx", "sgi", "jpeg2000", "dib"):
        pixels = picture(rng)
        options = {"lossless": True} if kind == "webp" else {}
        yield StrangeImage(f"plain.{kind}", encoded(pixels, kind, **options), pixels)
        yield StrangeImage(f"{kind}_named_wrongly.jpg", encoded(pixels, kind, **options), pixels)
    few = Image.fromarray(picture(rng)).quantize(16)
    for kind in ("gif", "png", "bmp", "tiff"):
        yield StrangeImage(f"palette.{kind}", encoded(few, kind), np.asarray(few.convert("RGB")))
    bits = picture(rng)[..., 0] > 128
    grey = bits[..., None].repeat(3, 2).astype(np.uint8) * 255
    for kind in ("png", "tiff", "ppm", "bmp"):
        yield StrangeImage(f"one_bit.{kind}", encoded(Image.fromarray(bits), kind), grey)


def _jpegs(rng: np.random.Generator) -> Iterator[StrangeImage]:
    kinds: dict[str, dict[str, Any]] = {
        "plain": {"subsampling": 0},
        "halved_colours": {"subsampling": 2},
        "progressive": {"progressive": True},
        "rgb": {"keep_rgb": True},
        "restarts": {"restart_marker_blocks": 3},
    }
    for name, options in kinds.items():
        pixels = picture(rng)
        content = encoded(pixels, "jpeg", quality=98, **options)
        yield StrangeImage(f"{name}.jpg", content, pixels, tolerance=12)
        yield StrangeImage(f"{name}.jpeg.png", content, pixels, tolerance=12)
    grey = picture(rng)[..., 0]
    shown = grey[..., None].repeat(3, 2)
    yield StrangeImage("grey.jpg", encoded(grey, "jpeg", quality=98), shown, tolerance=6)
    inks = np.dstack([picture(rng, (40, 30)), picture(rng, (40, 30))[..., 0] // 2])
    content = encoded(_inks(inks), "jpeg", quality=100)  # inverted and marked, as Adobe does
    yield StrangeImage("cmyk.jpg", content, _printed(inks), tolerance=12)


def _inks(inks: np.ndarray) -> Image.Image:
    height, width = inks.shape[:2]
    return Image.frombytes("CMYK", (width, height), inks.tobytes())


def _printed(inks: np.ndarray) -> np.ndarray:
    """Return what C, M, Y and K of 0..255 leave of white."""
    white = 255 - inks.astype(np.float64)
    return np.rint(white[..., :3] * white[..., 3:] / 255).astype(np.uint8)


def _deep(rng: np.random.Generator) -> Iterator[StrangeImage]:
    """Pictures of 16 bits a channel; the lower 8 are at random."""
    colour = picture(rng)
    deep = colour.astype(np.uint16) * 256 + rng.integers(0, 256, colour.shape, dtype=np.uint16)
    grey, deep_grey = colour[..., :1].repeat(3, 2), deep[..., 0]
    yield StrangeImage("deep_grey.png", png(deep_grey, 0), grey)
    yield StrangeImage("deep_grey.ppm", encoded(deep_grey, "ppm"), grey)
    yield StrangeImage("deep_grey.tiff", tiff(deep_grey, 1), grey)
    yield StrangeImage("deep_white_is_zero.tiff", tiff(deep_grey, 0), 255 - grey)
    yield StrangeImage("deep_rgb.png", png(deep, 2), colour)
    yield StrangeImage("deep_rgb.tiff", tiff(deep, 2), colour)
    hole = (deep_grey == deep_grey[3, 5])[..., None]
    mark = struct.pack(">H", deep_grey[3, 5])
    yield StrangeImage("deep_hole.png", png(deep_grey, 0, mark), np.where(hole, 255, grey))
    alpha = picture(rng, (colour.shape[1], colour.shape[0]))[..., 0]
    veiled = np.dstack([deep, alpha * np.uint16(257)])
    yield StrangeImage("deep_alpha.png", png(veiled, 6), on_white(colour, alpha), tolerance=2)
    yield StrangeImage("deep_alpha.tiff", tiff(veiled, 2, True), on_white(colour, alpha), 2)


def _tiffs(rng: np.random.Generator) -> Iterator[StrangeImage]:
    inks = np.dstack([picture(rng, (40, 30)), picture(rng, (40, 30))[..., 0] // 2])
    yield StrangeImage("cmyk.tiff", tiff(inks, 5), _printed(inks))
    yield StrangeImage("deep_cmyk.tiff", tiff(inks.astype(np.uint16) * 257, 5), _printed(inks))
    grey = picture(rng)[..., 0]
    yield StrangeImage("white_is_zero.tiff", tiff(grey, 0), 255 - grey[..., None].repeat(3, 2))
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        pixels = picture(rng)
        content = encoded(pixels, "tiff", compression=compression)
        yield StrangeImage(f"{compression}.tif", content, pixels)
    yield StrangeImage("float.tiff", encoded(np.array([[0.5, 1]], dtype=np.float32), "tiff"), None)


def _transparent(rng: np.random.Generator) -> Iterator[StrangeImage]:
    pixels = picture(rng)
    alpha = picture(rng, (pixels.shape[1], pixels.shape[0]))[..., 0]
    shown = on_white(pixels, alpha)
    veiled = np.dstack([pixels, alpha])
    for kind in ("png", "tiff", "tga", "webp"):
        options = {"lossless": True, "exact": True} if kind == "webp" else {}
        yield StrangeImage(f"alpha.{kind}", encoded(veiled, kind, **options), shown)
    grey = pixels[..., :1].repeat(3, 2)
    yield StrangeImage("grey_alpha.png", png(veiled[..., [0, 3]], 4), on_white(grey, alpha))
    few = Image.fromarray(pixels).quantize(8)
    colours = np.asarray(few.convert("RGB"))
    share = np.array([0, 128, *[255] * 6], dtype=np.uint8)
    content = encoded(few, "png", transparency=share.tobytes())
    places = np.asarray(few)
    yield StrangeImage("palette_alpha.png", content, on_white(colours, share[places]))
    hole = np.where((places == 2)[..., None], 255, colours).astype(np.uint8)
    yield StrangeImage("hole.gif", encoded(few, "gif", transparency=2), hole)
    hole = np.where((pixels == pixels[2, 2]).all(2)[..., None], 255, pixels).astype(np.uint8)
    mark = struct.pack(">HHH", *pixels[2, 2])
    yield StrangeImage("hole.png", png(pixels, 2, mark), hole)


def _animated(rng: np.random.Generator) -> Iterator[StrangeImage]:
    few = Image.fromarray(picture(rng, (50, 40))).quantize(16).convert("RGB")
    more = [Image.fromarray(picture(rng, (50, 40))) for _ in range(2)]
    for kind in ("gif", "png", "webp", "tiff"):
        options = {"lossless": True} if kind == "webp" else {}
        content = encoded(few, kind, save_all=True, append_images=more, **options)
        yield StrangeImage(f"animated.{kind}", content, np.asarray(few))


def _turned(rng: np.random.Generator) -> Iterator[StrangeImage]:
    for orientation, upright in _UPRIGHT.items():
        pixels = picture(rng)
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation
        kinds: list[tuple[str, dict[str, Any], int]] = [
            ("jpeg", {"quality": 98, "subsampling": 0}, 12),
            ("png", {}, 0),
            ("webp", {"lossless": True}, 0),
            ("tiff", {}, 0),
        ]
        for kind, options, tolerance in kinds:
            content = encoded(pixels, kind, exif=exif, **options)
            yield StrangeImage(f"turned_{orientation}.{kind}", content, upright(pixels), tolerance)


def _tiny(rng: np.random.Generator) -> Iterator[StrangeImage]:
    for size in ((1, 1), (1, 40), (900, 1)):
        pixels = picture(rng, size)
        for kind in ("png", "jpeg", "webp", "bmp", "tiff", "ppm"):
            options = {"lossless": True} if kind == "webp" else {"quality": 98, "subsampling": 0}
            content = encoded(pixels, kind, **options)
            yield StrangeImage(f"{size[0]}x{size[1]}.{kind}", content, pixels, tolerance=12)


def _no_pictures(rng: np.random.Generator) -> Iterator[StrangeImage]:
    for name, content in {
        "empty.jpg": b"",
        "text.jpg": b"no image at all\n" * 40,
        "page.png": b"<!DOCTYPE html><html><title>404</title></html>",
        "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg'><circle r='9'/></svg>",
        "script.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "noise.webp": rng.bytes(5000),
        "zeros.bmp": bytes(5000),
        "bomb.png": _bomb(),
        "bomb_of_header.bmp": b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40,
                                                  *(60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)),
    }.items():  # fmt: skip
        yield StrangeImage(name, content, None)


@cache
def _bomb() -> bytes:
    """A PNG file of 45 kB, whole, that unpacks to 20,000 x 18,000 pixels."""
    head = struct.pack(">IIBBBBB", 20_000, 18_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(18_000 * (1 + 20_000 // 8)), 9)
    return _PNG + _chunk(b"IHDR", head) + _chunk(b"IDAT", rows) + _END
