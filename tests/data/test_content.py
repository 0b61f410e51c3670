import json
import os

import numpy as np
import pytest

import data.content
from data.content import (
    INDEX_NAME,
    cache_folders,
    checked_digests,
    file_stats,
    hash_bytes,
    writable_folder,
)
from data.faults import DataError
from data.image_folder import create_source
from utils.errors import UserError


@pytest.fixture
def source(write_images, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return create_source(write_images({"set/train/a": 3, "set/train/b": 2}), folder="set")


def everything(source):
    return np.arange(len(source))


def test_digests_are_those_of_the_files(source):
    expected = [hash_bytes(source.path(i).read_bytes()) for i in range(5)]
    assert checked_digests(source, everything(source)) == expected
    assert checked_digests(source, np.array([3, 1])) == [expected[3], expected[1]]


def test_stats_are_those_of_the_files(source):
    os.utime(source.path(3), ns=(5, 7))
    assert file_stats(source, np.array([3, 0])) == [
        [source.path(3).stat().st_size, 7],
        [source.path(0).stat().st_size, source.path(0).stat().st_mtime_ns],
    ]


def test_unchanged_files_are_not_read_again(source, monkeypatch):
    first = checked_digests(source, everything(source))
    reads = []
    original = type(source.path(0)).read_bytes
    monkeypatch.setattr(
        type(source.path(0)), "read_bytes", lambda path: reads.append(path.name) or original(path)
    )
    assert checked_digests(source, everything(source)) == first and reads == []
    source.path(1).write_bytes(source.path(1).read_bytes() + b"x")
    os.utime(source.path(2), ns=(0, 0))
    second = checked_digests(source, everything(source))
    assert sorted(reads[1:]) == ["001.png", "002.png"]  # the first read is the test's own
    assert second[1] != first[1] and second[2:] == first[2:]


def test_sources_of_one_folder_share_the_index(source):
    checked_digests(source, np.array([0]))
    checked_digests(source, np.array([4]))
    index = json.loads((source.root / ".lth_cache" / INDEX_NAME).read_text())
    assert set(index) == {"train/a/000.png", "train/b/001.png"}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1]",
        "5",
        *(f'{{"train/a/000.png": {entry}}}' for entry in (0, [], [1], "[1, 2, 3]")),
    ],
)
def test_a_spoilt_index_is_made_anew(source, content):
    expected = checked_digests(source, everything(source))
    (source.root / ".lth_cache" / INDEX_NAME).write_text(content)
    assert checked_digests(source, everything(source)) == expected


def test_a_read_only_dataset_is_cached_in_the_users_folder(source, tmp_path):
    (source.root / ".lth_cache").write_text("a file where the folder would be")
    expected = [hash_bytes(source.path(i).read_bytes()) for i in range(5)]
    assert checked_digests(source, everything(source)) == expected
    folder = writable_folder(cache_folders(source.root))
    assert folder.is_relative_to(tmp_path / "user/long_tail_hashing")
    assert len(json.loads((folder / INDEX_NAME).read_text())) == 5


def test_no_writable_folder_is_no_error(source, tmp_path):
    (source.root / ".lth_cache").write_text("")
    (tmp_path / "user").write_text("")
    assert writable_folder(cache_folders(source.root)) is None
    assert len(checked_digests(source, everything(source))) == 5


def test_a_missing_file_is_named(source):
    source.path(3).unlink()
    with pytest.raises(UserError, match=str(source.path(3))):
        checked_digests(source, everything(source))


def test_all_broken_files_are_found_at_once_and_only_changed_files_are_decoded_again(
    source, monkeypatch
):
    whole = {index: source.path(index).read_bytes() for index in (1, 3)}
    source.path(1).write_bytes(whole[1][:70])
    source.path(3).write_bytes(b"")
    decoded = []
    check = type(source).check
    monkeypatch.setattr(
        type(source), "check", lambda self, index: decoded.append(index) or check(self, index)
    )
    with pytest.raises(DataError) as error:
        checked_digests(source, everything(source))
    assert len(error.value.faults) == 2 and sorted(decoded) == [0, 1, 2, 3, 4]
    for index, fault in zip((1, 3), error.value.faults, strict=True):
        assert fault.startswith(f"image {source.path(index)} cannot be read")
    decoded.clear()
    for index, content in whole.items():
        source.path(index).write_bytes(content)
    assert len(checked_digests(source, everything(source))) == 5 and sorted(decoded) == [1, 3]
    decoded.clear()
    checked_digests(source, everything(source))
    assert decoded == []


def test_what_was_checked_before_an_interruption_is_not_checked_again(source, monkeypatch):
    decoded = []

    def check(self, index):
        decoded.append(index)
        if len(decoded) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(data.content, "available_cores", lambda: 1)
    monkeypatch.setattr(type(source), "check", check)
    with pytest.raises(KeyboardInterrupt):
        checked_digests(source, everything(source))
    checked_digests(source, everything(source))
    assert [decoded.count(index) for index in range(4)] == [1, 1, 1, 2] and 4 in decoded


def test_another_decoding_checks_all_files_again(source, monkeypatch):
    checked_digests(source, everything(source))
    (source.root / ".lth_cache" / INDEX_NAME).rename(source.root / ".lth_cache/checked-1.json")
    checked = []
    monkeypatch.setattr(type(source), "check", lambda self, index: checked.append(index))
    checked_digests(source, everything(source))
    assert sorted(checked) == [0, 1, 2, 3, 4]
