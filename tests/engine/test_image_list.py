"""Which files a command takes as images, in which order, under which names."""

import os

import pytest

from engine.image_list import list_images
from utils.errors import UserError


def _touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def test_a_folders_images_are_named_from_it_files_first_then_subfolders(tmp_path):
    _touch(tmp_path, "b/2.PNG", "b/10.jpg", "a b/1.webp", "a/z.png", "x.gif", "ä.png", "b/c/1.bmp")
    _touch(tmp_path, "notes.txt", ".hidden.png", ".lth_cache/x.png", "b/Thumbs.db", "b/data.npy")
    files = list_images([str(tmp_path)])
    assert files.names == [
        *("x.gif", "ä.png", "a/z.png", "a b/1.webp", "b/10.jpg", "b/2.PNG", "b/c/1.bmp"),
    ]
    assert files.rows["x.gif"] == (5, (tmp_path / "x.gif").stat().st_mtime_ns)
    assert files.path("a/z.png") == str(tmp_path / "a" / "z.png")
    assert not files.unusable


def test_several_folders_files_and_lists_keep_the_names_they_are_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _touch(tmp_path, "a/1.png", "b/2.png", "c.dat", "d/e.png")
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfd/e.png\r\n\r\na/1.png\r\n")
    absolute = str(tmp_path / "b")
    files = list_images(["a/", absolute, "c.dat"], ["list.txt"])
    assert files.names == ["a/1.png", f"{absolute}/2.png", "c.dat", "d/e.png"]
    assert all(os.path.isfile(files.path(name)) for name in files.names)  # noqa: PTH113


def test_what_is_no_readable_file_is_noted_with_a_reason_and_the_rest_goes_on(tmp_path):
    _touch(tmp_path, "good.png", "z/good.png")
    (tmp_path / "nowhere.png").symlink_to("absent")
    (tmp_path / "round.png").symlink_to("round.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / os.fsdecode(b"latin\xe9.png")).write_bytes(b"x")
    files = list_images([str(tmp_path)])
    assert files.names == ["good.png", "z/good.png"]
    assert sorted(files.unusable) == sorted(
        ["nowhere.png", "round.png", "pipe.png", "latin\udce9.png"]
    )
    assert all(files.unusable.values())


def test_a_link_to_a_folder_above_is_not_followed_for_ever(tmp_path):
    _touch(tmp_path / "top", "1.png", "deep/2.png")
    _touch(tmp_path / "elsewhere", "3.png")
    (tmp_path / "top" / "deep" / "up").symlink_to("..")
    (tmp_path / "top" / "linked").symlink_to("../elsewhere")
    files = list_images([str(tmp_path / "top")])
    assert files.names == ["1.png", "deep/2.png", "linked/3.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_without_rights_is_noted(tmp_path):
    _touch(tmp_path, "1.png", "locked/2.png")
    (tmp_path / "locked").chmod(0)
    files = list_images([str(tmp_path)])
    (tmp_path / "locked").chmod(0o700)
    assert files.names == ["1.png"]
    assert "locked" in files.unusable


@pytest.mark.parametrize(
    ("given", "lists", "said"),
    [
        (["absent"], [], "absent: no such file"),
        (["empty"], [], "no image file there"),
        ([], ["absent.txt"], "--list absent.txt cannot be read"),
        ([], ["binary.txt"], "--list binary.txt cannot be read"),
        ([], ["blank.txt"], "the list: no image file there"),
    ],
)
def test_a_mistake_is_one_line(given, lists, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "blank.txt").write_bytes(b"\n \n")
    with pytest.raises(UserError) as caught:
        list_images(given, lists)
    assert said in str(caught.value) and "\n" not in str(caught.value)
