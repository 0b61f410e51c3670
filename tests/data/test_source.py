from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data.source import Source, find_root, join_subsets
from utils.errors import UserError


def test_class_indices_and_counts_equal_a_loop(array_source):
    for multi_label in (False, True):
        source = array_source(multi_label, train=[5, 0, 3], test=[2, 2, 2])
        indices = np.array([9, 1, 4, 12, 6])
        member = source.membership()
        groups = source.class_indices(indices)
        assert [list(group) for group in groups] == [
            [i for i in indices if member[i, c]] for c in range(3)
        ]
        assert list(source.class_counts(indices)) == [len(group) for group in groups]


def test_membership_of_open_images_is_empty(array_source):
    source = array_source(train=[1, 1])
    source = replace(source, labels=np.array([1, -1]))
    assert source.membership().tolist() == [[False, True], [False, False]]


def test_arrays_are_read_as_rgb(array_source):
    source = array_source(train=[1, 1])
    assert np.array_equal(np.asarray(source.read(1)), source.arrays[1])


def test_files_of_any_mode_are_read_as_rgb(tmp_path):
    Image.new("L", (3, 2), 7).save(tmp_path / "grey.png")
    Image.new("RGBA", (3, 2), (1, 2, 3, 0)).save(tmp_path / "alpha.png")
    Image.fromarray(np.full((2, 3), 0x0700, np.uint16)).save(tmp_path / "deep.png")
    names = ["grey.png", "alpha.png", "deep.png"]
    source = Source("x", ["a"], names, np.zeros(3, np.int64), {}, root=tmp_path)
    assert np.asarray(source.read(0)).tolist() == [[[7, 7, 7]] * 3] * 2
    assert np.asarray(source.read(1)).tolist() == [[[255] * 3] * 3] * 2
    assert np.asarray(source.read(2)).tolist() == [[[7] * 3] * 3] * 2


@pytest.mark.parametrize("content", [None, b"", b"no image", "truncated"])
def test_unreadable_image_names_its_path(tmp_path, write_image, content):
    path = write_image("broken.png", (64, 64))
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:900] if content == "truncated" else content)
    source = Source("x", ["a"], ["broken.png"], np.zeros(1, np.int64), {}, root=tmp_path)
    with pytest.raises(UserError) as error:
        source.read(0)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_inconsistent_sources_are_refused():
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="1 labels for 2"):
        Source("x", ["a"], ["p", "q"], np.zeros(1, np.int64), {}, arrays=pixels)
    with pytest.raises(ValueError, match="unique"):
        Source("x", ["a"], ["p", "p"], np.zeros(2, np.int64), {}, arrays=pixels)
    with pytest.raises(ValueError, match="root or arrays"):
        Source("x", ["a"], ["p", "q"], np.zeros(2, np.int64), {})


def test_joined_subsets_hold_every_image_once_and_keep_open_apart(array_source):
    source = array_source(train=[2, 2], test=[1, 1], open=[1, 1])
    overlapping = replace(source, subsets=source.subsets | {"val": np.array([0, 1])})
    joined = join_subsets(overlapping)
    assert {name: ids.tolist() for name, ids in joined.subsets.items()} == {
        "all": [0, 1, 2, 3, 4, 5],
        "open": [6, 7],
    }


def test_missing_root_names_the_layout_and_both_remedies(tmp_path):
    for root, said in ((None, "no data root"), ("", "no data root"), (tmp_path, "does not exist")):
        with pytest.raises(UserError, match=said) as error:
            find_root(root, "absent", "<root>/train")
        for word in ("<root>/train", "training_opt.data_root", "LTH_DATA_ROOT"):
            assert word in str(error.value)
