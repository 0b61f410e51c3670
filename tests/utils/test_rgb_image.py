"""Images of every mode come out as a viewer shows them."""

import io

import numpy as np
import pytest
from PIL import Image

from utils.rgb_image import open_image, to_rgb


def reopened(image: Image.Image, kind: str = "png", **options) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return Image.open(io.BytesIO(stream.getvalue()))


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm"])
def test_sixteen_bits_keep_their_brightness(kind):
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    found = np.asarray(to_rgb(reopened(Image.fromarray(values), kind)))
    assert found[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    assert (found == found[..., :1]).all() and found.shape == (1, 5, 3)


@pytest.mark.parametrize("values", [np.float32([[0.5]]), np.int32([[1 << 20]]), np.int32([[-1]])])
def test_pixels_of_unknown_range_are_refused(values):
    with pytest.raises(ValueError, match="expected 8 or 16 bits"):
        to_rgb(reopened(Image.fromarray(values), "tiff"))


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (4, 2), (10, 20, 30))
    image.paste((200, 100, 50), (0, 0, 1, 1))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90° clockwise
    found = np.asarray(to_rgb(reopened(image, exif=exif.tobytes())))
    assert np.array_equal(found, np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_become_white(mode):
    grey = Image.new("L", (3, 1), 100)
    image = (grey.convert("P") if mode == "PA" else grey).convert(mode)
    image.putalpha(Image.fromarray(np.array([[0, 255, 51]], np.uint8)))
    assert image.mode == mode
    assert np.asarray(to_rgb(image))[0].tolist() == [[255] * 3, [100] * 3, [224] * 3]


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_becomes_white(mode):
    image = Image.new("L", (2, 1), 0)
    image.putpixel((1, 0), 9)
    image = image.convert(mode)
    colour = (0, 0, 0) if mode == "RGB" else 0
    found = np.asarray(to_rgb(reopened(image, transparency=colour)))
    assert found[0].tolist() == [[255] * 3, [9] * 3]


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_plain_rgb_is_the_opened_image_itself(kind):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    plain = np.asarray(reopened(Image.fromarray(pixels), kind).convert("RGB"))
    image = reopened(Image.fromarray(pixels), kind)
    found = to_rgb(image)
    assert found is image and np.array_equal(np.asarray(found), plain)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_hide_the_pixels():
    image = Image.new("RGB", (4, 2), (10, 20, 30))
    for content in (b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01", b"MM"):
        for kind in ("png", "jpeg", "webp"):
            assert to_rgb(reopened(image, kind, exif=content)).size == (4, 2)


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg", "bmp", "gif", "tiff", "ppm", "tga"])
def test_any_format_is_opened_whatever_the_file_is_called(tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    for suffix in ("." + kind, ".png", ".webp", ""):
        path = tmp_path / f"image{suffix}"
        Image.fromarray(pixels).save(path, kind)
        with open_image(path) as image, Image.open(path) as expected:
            assert image.format == expected.format == kind.upper()
            assert np.array_equal(np.asarray(to_rgb(image)), np.asarray(expected.convert("RGB")))


@pytest.mark.parametrize("content", [b"", b"x", b"RIFF....WEBPVP8 "])
def test_a_file_that_is_no_image_is_refused(tmp_path, content):
    path = tmp_path / "image.webp"
    path.write_bytes(content)
    with pytest.raises(OSError):
        open_image(path)
