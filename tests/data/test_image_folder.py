import os
import shutil

import numpy as np
import pytest

from data.check import check_source
from data.faults import DataError
from data.image_folder import create_source
from data.images import open_images
from utils.errors import UserError

TRAIN_TEST = {"train/cat": 3, "train/dog": 2, "test/cat": 1, "test/dog": 2}
RELEASED = {
    f"{subset}/{name}": 2 for subset in ("train", "query", "database") for name in ("cat", "dog")
}


def names_of(source, subset):
    return [source.image_names[index] for index in source.subsets[subset]]


def test_train_and_test_folders(write_images):
    source = create_source(write_images(TRAIN_TEST), name="Pets")
    assert source.name == "Pets" and source.class_names == ["cat", "dog"]
    assert names_of(source, "test") == ["test/cat/000.png", "test/dog/000.png", "test/dog/001.png"]
    assert source.labels.tolist() == [0, 0, 0, 1, 1, 0, 1, 1]
    assert source.read(0).size == (8, 8)


def test_test_folder_may_be_absent(write_images):
    source = create_source(write_images({"train/cat": 1, "train/dog": 1}))
    assert list(source.subsets) == ["train"]


@pytest.mark.parametrize("level", ["", "images/"])
def test_released_layout_with_and_without_images_level(write_images, level):
    root = write_images({f"Set-IF50/{level}{name}": count for name, count in RELEASED.items()})
    source = create_source(root, folder="Set-IF50")
    assert source.name == "Set-IF50"
    assert list(source.subsets) == ["train", "query", "database"]
    assert len(source) == 12 and source.root == root / "Set-IF50" / level.strip("/")


def test_open_images_lie_directly_or_in_class_folders(write_images):
    source = create_source(write_images(TRAIN_TEST | {"open": 2, "open/cow": 1, "val/cat": 1}))
    assert names_of(source, "open") == ["open/000.png", "open/001.png", "open/cow/000.png"]
    assert set(source.labels[source.subsets["open"]]) == {-1}
    assert source.class_names == ["cat", "dog"] and len(source.subsets["val"]) == 1


def test_any_readable_extension_in_any_case_but_no_hidden_or_other_files(write_images):
    root = write_images(TRAIN_TEST)
    folder = root / "train/cat"
    (folder / "000.png").rename(folder / "000.PnG")
    for name in (".hidden.png", "notes.txt", "readme"):
        (folder / name).write_bytes(b"x")
    (folder / "folder.png").mkdir()
    (root / "train/.cache").mkdir()
    (folder / "photo.JPEG").write_bytes(b"x")
    (folder / "photo.webp").write_bytes(b"x")
    source = create_source(root)
    cats = [n.rpartition("/")[2] for n in names_of(source, "train") if "/cat/" in n]
    assert cats == ["000.PnG", "001.png", "002.png", "photo.JPEG", "photo.webp"]


def test_a_class_may_lack_test_images(write_images):
    source = create_source(write_images({"train/cat": 1, "train/dog": 1, "test/dog": 1}))
    assert source.labels[source.subsets["test"]].tolist() == [1]


def test_joined_subsets(write_images):
    source = create_source(write_images(TRAIN_TEST), join=True)
    assert np.array_equal(source.subsets["all"], np.arange(8))


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"cat": 1}, "no folder 'train'"),
        ({"train": 1}, "no class folder"),
        (TRAIN_TEST | {"train/eel": 0}, "train/eel holds no readable"),
        (TRAIN_TEST | {"test/eel": 0, "train/eel": 1}, "test/eel holds no readable"),
        (TRAIN_TEST | {"test/eel": 1}, "test/eel has no counterpart"),
        (RELEASED | {"train/eel": 1}, "database/eel is missing"),
        (RELEASED | {"test/cat": 1}, "holds database, query, test, train"),
        ({"train/cat": 1, "query/cat": 1}, "holds query, train"),
    ],
)
def test_wrong_layouts_are_named(write_images, counts, said):
    root = write_images(counts)
    with pytest.raises(UserError, match=said) as error:
        create_source(root)
    assert str(root) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", [b"train/a/\xff.png", b"train/\xff/0.png", b"open/\xff.png"])
def test_names_that_are_not_utf8_are_named(write_images, name):
    root = write_images({"train/a": 2})
    path = root / os.fsdecode(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "train/a/000.png", path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    with pytest.raises(UserError, match=r"b'\\xff(\.png)?'.*not UTF-8") as error:
        create_source(root)
    str(error.value).encode()


def test_links_are_what_they_point_to(write_images, tmp_path):
    root = write_images({"set/train/cat": 1, "set/train/dog": 1, "far/cow": 2})
    (root / "set/train/cow").symlink_to(root / "far/cow")
    (root / "set/train/cat/001.png").symlink_to(root / "far/cow/000.png")
    (root / "set/train/cat/folder.png").symlink_to(root / "far")
    (root / "set/notes").symlink_to("nowhere")
    source = create_source(root, "set")
    assert source.class_names == ["cat", "cow", "dog"]
    assert names_of(source, "train")[:2] == ["train/cat/000.png", "train/cat/001.png"]
    assert source.read(1).tobytes() == source.read(2).tobytes()


@pytest.mark.parametrize("target", ["nowhere.png", "lost.png"])  # the second leads to itself
def test_image_links_to_nowhere_are_found_before_training(write_images, target):
    root = write_images(TRAIN_TEST)
    path = root / "train/cat/lost.png"
    path.symlink_to(target)
    source = create_source(root)
    (line,) = check_source(source).unreadable
    assert line.startswith(f"image {path} cannot be read")
    for cache_size in ("auto", None):
        with pytest.raises(UserError, match=str(path)):
            open_images(source, cache_size).digests(np.arange(len(source)))


@pytest.mark.parametrize("place", ["test", "train/eel", "test/cat", "train/cat/eel.png/cow"])
@pytest.mark.parametrize("target", ["nowhere", None])
def test_folder_links_to_nowhere_are_named(write_images, place, target):
    root = write_images({"train/cat": 1, "train/dog": 1})
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(path.name if target is None else target)
    if place.endswith("cow"):  # beneath a folder that nothing is looked for in
        assert len(create_source(root)) == 2
        return
    with pytest.raises(UserError, match=f"folder {path} cannot be read") as error:
        create_source(root)
    assert "\n" not in str(error.value)


def test_all_unreadable_folders_are_found_at_once(write_images, monkeypatch):
    root = write_images(TRAIN_TEST)
    locked = [str(root / "train/dog"), str(root / "test/cat")]
    scandir = os.scandir

    def look(folder):
        if str(folder) in locked:  # root may look anywhere, so that rights alone show nothing
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", look)
    with pytest.raises(DataError) as error:
        create_source(root)
    for folder, fault in zip(locked, error.value.faults, strict=True):
        assert fault.startswith(f"folder {folder} cannot be read (Permission denied)")


def test_strange_names_stay_on_one_line(write_images):
    root = write_images({"train/a\nb": 2, "train/" + "x" * 250: 1, "train/é漢": 1})
    source = create_source(root)
    assert source.class_names == ["a\nb", "x" * 250, "é漢"]
    assert open_images(source).array.shape == (4, 8, 8, 3)
    source.path(0).write_bytes(b"")
    (line,) = check_source(source).unreadable
    assert line.isprintable() and "a\\nb/000.png" in line
