"""Image files as a viewer shows them, or refused by name."""

import hashlib
import os

import numpy as np
import pytest
from PIL import Image

from data import image_file
from data.image_file import DECODING, check_image, image_size, read_image
from utils.errors import UserError

READERS = [read_image, check_image, image_size]


@pytest.fixture
def limit(monkeypatch):
    """Set the user's limit of pixels."""

    def set_limit(value):
        monkeypatch.setenv("LTH_MAX_PIXELS", value)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # to be restored
        image_file._limit_pixels.cache_clear()

    yield set_limit
    image_file._limit_pixels.cache_clear()


def refused(path, read=read_image, **options):
    with pytest.raises(UserError) as error:
        read(path, **options)
    assert str(error.value).isprintable()
    return str(error.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("read", READERS)
def test_the_limit_of_pixels_is_the_users(write_image, limit, read):
    path = write_image("x.png", (20, 10))
    for most in ("200", "201", "999999999999"):
        limit(most)
        read(path)
    limit("198")
    line = refused(path, read)
    assert f"image {path} cannot be read (it has more than 198 pixels)" in line
    assert "set LTH_MAX_PIXELS" in line


@pytest.mark.parametrize("value", ["", "0", "-5", "1e9", "many", "²", "9" * 40])
def test_a_limit_that_is_no_number_is_refused(write_image, limit, value):
    limit(value)
    assert "LTH_MAX_PIXELS is" in refused(write_image("x.png"))


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "no regular file"),
        (lambda path: os.mkfifo(path), "no regular file"),
        (lambda path: path.symlink_to("nowhere.png"), "No such file"),
        (lambda path: path.symlink_to(path.name), "symbolic links"),
        (lambda path: path.touch(), "the file is empty"),
        (lambda path: path.write_text("hello"), "no image of a format that Pillow reads"),
        (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "EPS"),
    ],
)
def test_what_is_no_image_file_is_refused_with_the_reason(tmp_path, read, make, said):
    path = tmp_path / "x.png"
    make(path)
    line = refused(path, read)
    assert line.startswith(f"image {path} cannot be read (") and said in line


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), MemoryError()])
def test_whatever_the_opening_raises_names_the_file(write_image, monkeypatch, error):
    path = write_image("x.png")

    def fail(path):
        raise error

    monkeypatch.setattr(image_file, "open_image", fail)
    reason = error.strerror if isinstance(error, OSError) else "MemoryError"
    assert f"image {path} cannot be read ({reason})" in refused(path)


def test_an_interruption_is_no_broken_file(write_image, monkeypatch):
    def fail(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(image_file, "open_image", fail)
    with pytest.raises(KeyboardInterrupt):
        read_image(write_image("x.png"))


def test_the_line_that_lists_a_file_comes_first(tmp_path):
    path = tmp_path / "x.png"
    assert refused(path, place="l.txt, line 3").startswith(f"l.txt, line 3: image {path} cannot")


@pytest.mark.parametrize("name", ["a\nb.png", "é漢字.png", "x" * 251 + ".png", b"\xff.png"])
def test_strange_names_are_read_and_shown(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    try:
        Image.new("RGB", (2, 2), (1, 2, 3)).save(path, "PNG")
    except OSError:
        pytest.skip("this file system does not take such names")
    assert read_image(path).getpixel((0, 0)) == (1, 2, 3)
    path.write_bytes(b"")
    refused(path).encode()


def test_a_name_that_is_too_long_or_holds_a_zero_byte_is_refused(tmp_path):
    assert "too long" in refused(tmp_path / ("x" * 300))
    assert "null byte" in refused(f"{tmp_path}/a\0b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file")
def test_a_file_without_rights_is_refused(write_image):
    path = write_image("x.png")
    path.chmod(0)
    assert f"image {path} cannot be read (Permission denied)" in refused(path)


def test_a_check_decodes_all_of_a_jpeg_file(write_image):
    path = write_image("x.jpg", (400, 300))
    check_image(path)
    path.write_bytes(path.read_bytes()[:-2000])
    assert "truncated" in refused(path, check_image)
    assert image_size(path) == (400, 300)


def test_other_pixels_have_another_version(tmp_path):
    """Whoever changes what files of any kind decode to must raise DECODING, and this digest."""
    y, x = np.mgrid[:8, :16]
    grey, colour = (x * 16).astype(np.uint8), np.dstack([x * 16, y * 32, x * y]).astype(np.uint8)
    veiled = np.dstack([colour, 255 - grey])
    few = Image.fromarray(colour).quantize(8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colour).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(veiled).save(tmp_path / "alpha.png")
    Image.fromarray(grey.astype(np.uint16) * 256 + 200).save(tmp_path / "deep.png")
    Image.fromarray(grey.astype(np.uint16) * 256 + 200).save(tmp_path / "deep.tiff")
    Image.frombytes("CMYK", (16, 8), veiled.tobytes()).save(tmp_path / "inks.tiff")
    few.save(tmp_path / "hole.gif", transparency=1)
    few.save(tmp_path / "hole.png", transparency=bytes([0, 99, 255]))
    digest = hashlib.sha256()
    for path in sorted(tmp_path.iterdir()):
        image = read_image(path)
        digest.update(repr(image.size).encode() + image.tobytes())
    assert (DECODING, digest.hexdigest()[:16]) == (2, "fb34a9741e8cd576")
