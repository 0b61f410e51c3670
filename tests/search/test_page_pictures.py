"""Which pictures the page shows and takes, and what it makes of them."""

import io
import os

import pytest
from PIL import Image

pytest.importorskip("faiss")

from page_client import made_index

from search import page_pictures
from search.page_pictures import SIDES, Pictures, check_upload, small_copy
from search.rows import make_rows
from utils.errors import UserError

COLOUR = (200, 10, 150)


@pytest.fixture
def index(tmp_path):
    return made_index(tmp_path, 12)


def add(index, path):
    """The id of a new image of that path."""
    return int(index.add(index.codes([0]), make_rows(1, path=[str(path)]))[0])


def opened(found):
    return Image.open(io.BytesIO(found.content))


def test_a_small_picture_keeps_every_pixel(index):
    found = Pictures(index).get(7, "small")
    assert found.kind == "image/png"
    assert opened(found).size == (9, 6)
    assert opened(found).getpixel((4, 3)) == (7, 0, 77)


@pytest.mark.parametrize("size", ["small", "large"])
def test_a_large_picture_is_made_small_and_upright(index, tmp_path, size):
    photo = Image.new("RGB", (3000, 1500), COLOUR)
    exif = photo.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    photo.save(tmp_path / "images" / "photo.jpg", exif=exif)
    found = Pictures(index).get(add(index, "photo.jpg"), size)
    assert found.kind == "image/jpeg"
    assert opened(found).size == (SIDES[size] // 2, SIDES[size])
    assert not opened(found).getexif()


@pytest.mark.parametrize("path", ["../secret.png", "cat/../../secret.png", "link.png",
                                  "linked/secret.png", "loop.png", "gone.png", "cat", "a\0b.png",
                                  "../secret.txt", "secret.txt"])  # fmt: skip
@pytest.mark.parametrize("size", ["small", "large"])
def test_what_lies_outside_or_is_no_picture_is_not_shown(index, tmp_path, path, size):
    root = tmp_path / "images"
    Image.new("RGB", (8, 8), COLOUR).save(tmp_path / "secret.png")
    for folder in (tmp_path, root):
        (folder / "secret.txt").write_text("secret")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "linked").symlink_to(tmp_path, target_is_directory=True)
    (root / "loop.png").symlink_to(root / "loop.png")
    with pytest.raises(UserError) as caught:
        Pictures(index).get(add(index, path), size)
    assert str(tmp_path) not in str(caught.value)


def test_a_pipe_is_not_waited_for(index, tmp_path):
    os.mkfifo(tmp_path / "images" / "pipe.png")
    with pytest.raises(UserError, match="no regular file"):
        Pictures(index).get(add(index, "pipe.png"), "small")


def test_links_within_the_folder_and_to_further_ones_are_followed(index, tmp_path):
    root, further = tmp_path / "images", tmp_path / "further"
    further.mkdir()
    Image.new("RGB", (8, 8), COLOUR).save(further / "own.png")
    (root / "away.png").symlink_to(further / "own.png")
    (root / "within.png").symlink_to(root / index.rows([5])["path"][0].as_py())
    item, within = add(index, "away.png"), add(index, "within.png")
    assert opened(Pictures(index).get(within, "small")).getpixel((0, 0)) == (5, 0, 77)
    with pytest.raises(UserError, match="--also"):
        Pictures(index).get(item, "small")
    assert opened(Pictures(index, [further]).get(item, "small")).getpixel((0, 0)) == COLOUR


def test_a_whole_path_is_shown_unless_a_link_leads_away(index, tmp_path):
    Image.new("RGB", (8, 8), COLOUR).save(tmp_path / "own.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "own.png")
    assert Pictures(index).get(add(index, tmp_path / "own.png"), "small").kind == "image/png"
    for path in (tmp_path / "link.png", f"{tmp_path}/images/../own.png"):
        with pytest.raises(UserError, match="--also"):
            Pictures(index).get(add(index, path), "small")


def test_an_index_without_folder_or_paths_shows_none(tmp_path):
    index = made_index(tmp_path, 2, image_root="")
    for item in (0, int(index.add(index.codes([0]), make_rows(1))[0])):
        with pytest.raises(UserError, match="does not know"):
            Pictures(index).get(item, "small")


def test_what_is_kept_is_bounded_and_the_last_used_stay(index, monkeypatch):
    size = len(Pictures(index).get(0, "small").content)
    pictures, made = Pictures(index, cache_bytes=3 * size + size // 2), []
    monkeypatch.setattr(page_pictures, "small_copy",
                        lambda path, side: made.append(path) or small_copy(path, side))  # fmt: skip
    for item in (0, 1, 2, 0, 3, 0, 1):
        pictures.get(item, "small")
        assert pictures.cached == sum(len(each.content) for each in pictures.cache.values())
        assert pictures.cached <= 3 * size + size // 2
    assert len(made) == 5  # 1 had to make room for 3


def test_a_picture_of_too_many_pixels_is_neither_taken_nor_shown(index, tmp_path, monkeypatch):
    path = tmp_path / "images" / "wide.png"
    Image.new("1", (2000, 1000)).save(path)
    check_upload(path)
    monkeypatch.setattr(page_pictures, "MAX_PIXELS", 1_999_999)
    with pytest.raises(UserError, match="2000 x 1000 pixels"):
        check_upload(path)
    with pytest.raises(UserError, match="2000 x 1000 pixels"):
        Pictures(index).get(add(index, "wide.png"), "small")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900_000)
    with pytest.raises(UserError, match="too large"):
        check_upload(path)


@pytest.mark.parametrize("content", [b"", b"text", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"P6 9 9 255\n",
                                     b"II*\0\x08\0\0\0\0\0", b"GIF89a", b"\x89PNG\r\n\x1a\n",
                                     b"RIFF\x10\0\0\0WEBPVP8X", b"\xff\xd8\xff"])  # fmt: skip
def test_no_picture_is_taken(tmp_path, content):
    path = tmp_path / "some"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        check_upload(path)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", page_pictures.FORMATS)
def test_what_the_page_says_it_takes_it_takes(tmp_path, kind):
    path = tmp_path / "some"
    Image.new("RGB", (16, 16), COLOUR).save(path, kind)
    check_upload(path)
