"""What image files show, by decoders that share nothing with Pillow's use in the project."""

import re
import struct
import warnings
import zlib

import numpy as np
import torch

from benchmarks.strange_images import on_white

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG's colour type
_LARGEST = 1 << 22  # pixels; this is no fast decoder


def oracle_pixels(content: bytes) -> np.ndarray | None:
    """Return the (H, W, 3) uint8 pixels of a file, transparency laid over white.

    None where the file is broken or of a kind that is not known here: with EXIF (spoilt ones are
    read in many ways), interlaced PNG, GIF with transparent colours, animated WebP, and all other
    formats. torchvision's PNG decoder is not used: spoilt files end the process.
    """
    try:
        if re.search(b"exif", content, re.IGNORECASE):
            return None
        if content.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png_pixels(content)
        return _torchvision_pixels(content)
    except (RuntimeError, ValueError, LookupError, struct.error, zlib.error):
        return None


def _torchvision_pixels(content: bytes) -> np.ndarray | None:
    import torchvision.io as decoders

    file = torch.frombuffer(bytearray(content or b"\0"), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the decoders will move to another library
        if content.startswith(b"\xff\xd8"):
            found = decoders.decode_jpeg(file, mode="RGB")
        elif content.startswith(b"GIF") and not re.search(rb"\x21\xf9\x04[^\0]", content):
            found = decoders.decode_gif(file)
        elif content[8:12] == b"WEBP":
            found = decoders.decode_webp(file, mode="RGBA")
        else:
            return None
    pixels = (found[0] if found.ndim == 4 else found).permute(1, 2, 0).numpy()
    return pixels if pixels.shape[2] == 3 else on_white(pixels[..., :3], pixels[..., 3])


def _png_pixels(content: bytes) -> np.ndarray | None:
    chunks = _png_chunks(content)
    width, height, depth, colour_type, *methods = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if any(methods) or width * height > _LARGEST or colour_type not in _CHANNELS:
        return None
    channels = _CHANNELS[colour_type]
    rows = _png_rows(chunks[b"IDAT"], height, -(-width * channels * depth // 8), channels * depth)
    if depth == 16:
        values = rows.view(">u2").astype(np.uint16)
    elif depth == 8:
        values = rows.astype(np.uint16)
    else:
        bits = np.unpackbits(rows, axis=1).reshape(height, -1, depth)[:, : width * channels]
        values = (bits << np.arange(depth)[::-1]).sum(2).astype(np.uint16)
    values = values.reshape(height, width, channels)
    alpha = _png_alpha(values, chunks.get(b"tRNS"), colour_type, depth)
    if colour_type == 3:
        colours = np.frombuffer(chunks[b"PLTE"], dtype=np.uint8).reshape(-1, 3)[values[..., 0]]
    else:
        grey = values[..., :1] if channels < 3 else values[..., :3]
        colours = (grey >> 8 if depth == 16 else grey * 255 // (2**depth - 1)).astype(np.uint8)
    return on_white(colours.repeat(3, 2) if colours.shape[2] == 1 else colours, alpha)


def _png_chunks(content: bytes) -> dict[bytes, bytes]:
    """Return chunks by name up to IEND; the parts of IDAT joined, of others the last."""
    chunks = {b"IDAT": b""}
    place = 8
    while place < len(content):
        length, name = struct.unpack_from(">I4s", content, place)
        body = content[place + 8 : place + 8 + length]
        chunks[name] = chunks[name] + body if name == b"IDAT" else body
        place += 12 + length
        if name == b"IEND":
            break
    if b"IHDR" not in chunks:
        raise ValueError("no header")
    return chunks


def _png_rows(packed: bytes, height: int, length: int, pixel_bits: int) -> np.ndarray:
    """Return (height, length) uint8: rows of bytes, their filters undone."""
    data = zlib.decompressobj().decompress(packed, height * (length + 1))
    lines = np.frombuffer(data, dtype=np.uint8).reshape(height, length + 1)
    step = max(1, pixel_bits // 8)  # bytes to the left neighbour
    rows = np.zeros((height + 1, length + step), dtype=np.int64)  # with an empty margin
    for y, line in enumerate(lines.tolist(), start=1):
        for x in range(step, length + step):
            left, up, corner = rows[y, x - step], rows[y - 1, x], rows[y - 1, x - step]
            guess = (0, left, up, (left + up) // 2, _paeth(left, up, corner))[line[0]]
            rows[y, x] = (line[1 + x - step] + guess) % 256
    return rows[1:, step:].astype(np.uint8)


def _paeth(left: int, up: int, corner: int) -> int:
    return min((left, up, corner), key=lambda value: abs(left + up - corner - value))


def _png_alpha(
    values: np.ndarray, transparent: bytes | None, colour_type: int, depth: int
) -> np.ndarray:
    """Return (H, W) uint8, of which 255 is opaque."""
    if colour_type in (4, 6):
        alpha = values[..., -1]
        return (alpha >> 8 if depth == 16 else alpha).astype(np.uint8)
    if transparent is None:
        return np.full(values.shape[:2], 255, dtype=np.uint8)
    if colour_type == 3:
        shares = np.frombuffer(transparent.ljust(256, b"\xff")[:256], dtype=np.uint8)
        return shares[values[..., 0]]
    hole = np.frombuffer(transparent[: 2 * values.shape[2]], dtype=">u2")
    return np.where((values == hole).all(2), 0, 255).astype(np.uint8)
