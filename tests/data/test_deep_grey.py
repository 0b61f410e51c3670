"""Grey of more than 8 bits keeps its brightness; Pillow would clip it at 255."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data.deep_grey import eight_bits

VALUES = np.array([[0, 255, 256, 4095, 32768, 65535]], dtype=np.uint16)


def opened(content):
    return Image.open(io.BytesIO(content))


def tiff(rows, width, bits, photometric):
    """A TIFF file of one row of packed grey pixels."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 110, 277: 1, 278: 1}
    entries = [struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags.items()]
    return (b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(entries) + bytes(4)).ljust(
        110, b"\0"
    ) + rows


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm"])
def test_of_16_bits_the_upper_8_are_kept(kind):
    stream = io.BytesIO()
    Image.fromarray(VALUES).save(stream, kind)
    found = eight_bits(opened(stream.getvalue()))
    assert found.mode == "L" and np.asarray(found).tolist() == (VALUES >> 8).tolist()


@pytest.mark.parametrize(("photometric", "white"), [(1, 255), (0, 0)])
def test_tiff_says_whether_0_is_white(photometric, white):
    found = eight_bits(opened(tiff(VALUES.tobytes(), 6, 16, photometric)))
    upper = (VALUES >> 8).astype(int)
    assert np.asarray(found).tolist() == np.abs(upper - (255 - white)).tolist()


def test_of_12_bits_the_upper_8_are_kept():
    packed = bytes([0x00, 0x08, 0x00, 0x0F, 0xFF, 0xF1])  # 0x000, 0x800, 0x0ff, 0xff1
    found = eight_bits(opened(tiff(packed, 4, 12, photometric=1)))
    assert np.asarray(found).tolist() == [[0x00, 0x80, 0x0F, 0xFF]]


def png(row, width, depth, transparent):
    """A PNG file of one row of packed grey pixels, of which one value is transparent."""

    def chunk(name, content):
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, 0, 0, 0, 0))
    hole = chunk(b"tRNS", struct.pack(">H", transparent))
    data = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + head + hole + data + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("row", "depth", "transparent", "greys"),
    [
        (bytes([0b01_10_11_00]), 2, 1, [85, 170, 255, 0]),
        (bytes([0x3F, 0x80]), 4, 3, [51, 255, 136, 0]),
        (bytes([7, 9, 200, 7]), 8, 9, [7, 9, 200, 7]),
        (struct.pack(">4H", 0x0700, 0x0701, 0xFFFF, 0), 16, 0x0701, [7, 7, 255, 0]),
    ],
)
def test_the_transparent_grey_alone_is_transparent(row, depth, transparent, greys):
    found = np.asarray(eight_bits(opened(png(row, 4, depth, transparent))).convert("LA"))
    assert found[0, :, 0].tolist() == greys
    place = {2: 0, 4: 0, 8: 1, 16: 1}[depth]
    assert found[0, :, 1].tolist() == [0 if x == place else 255 for x in range(4)]


def test_deep_images_come_back_upright():
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(VALUES).save(stream, "png", exif=exif)
    assert (
        np.asarray(eight_bits(opened(stream.getvalue()))).tolist()
        == (VALUES[:, ::-1] >> 8).tolist()
    )


@pytest.mark.parametrize("values", [[[-1, 5]], [[0, 1 << 16]]])
def test_pixels_of_unknown_range_are_refused(values):
    stream = io.BytesIO()
    Image.fromarray(np.array(values, dtype=np.int32)).save(stream, "tiff")
    with pytest.raises(ValueError, match="expected 8 or 16 bits"):
        eight_bits(opened(stream.getvalue()))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK", "F"])
def test_other_images_come_back_themselves(mode):
    image = Image.new(mode, (3, 2))
    assert eight_bits(image) is image
