"""Classes of an index: names, sizes and groups."""

import pytest

pytest.importorskip("faiss")

import numpy as np
from drawn_codes import draw_codes
from page_client import COUNTS, made_index

from retrieval.metrics import evaluate
from search.opening import create_index
from search.page_classes import find_classes
from search.rows import make_rows
from search.store import Coding


def labelled(folder, labels, splits=None, **coding):
    index = create_index(folder, Coding(24, **coding))
    codes = draw_codes(np.random.default_rng(0), len(labels), 24)
    index.add(codes, make_rows(len(labels), label=labels, split=splits))
    return index


def test_groups_are_those_that_the_evaluation_counts(tmp_path):
    classes = find_classes(made_index(tmp_path))
    assert {name: classes.group(name) for name in COUNTS} == {
        "cat": "many", "dog": "medium", "eel": "medium", "fox": "few",
    }  # fmt: skip
    codes, labels = draw_codes(np.random.default_rng(0), 4, 24), np.arange(4)
    counts = np.array(list(COUNTS.values()))
    for number, name in enumerate(COUNTS):
        one = labels[number : number + 1]
        found = evaluate(codes[number : number + 1], codes, one, labels, code_length=24,
                         top_k=(), train_class_counts=counts)  # fmt: skip
        (group,) = [each for each, value in found.groups.items() if value is not None]
        assert group == classes.group(name)


def test_without_stated_sizes_images_of_the_split_train_are_counted(tmp_path):
    labels = ["a"] * 5 + ["b"] * 3 + ["a"] * 4
    splits = ["train"] * 8 + ["test"] * 4
    classes = find_classes(labelled(tmp_path, labels, splits))
    assert classes.counts == {"a": 5, "b": 3}
    assert "train" in classes.source


def test_without_either_no_size_is_known(tmp_path):
    classes = find_classes(labelled(tmp_path, ["2", "10", None, "1"]))
    assert classes.names == ("1", "2", "10")
    assert (classes.counts, classes.source, classes.group("1")) == ({}, "", None)


def test_an_image_of_several_labels_is_of_each_class(tmp_path):
    labels = ["sky", "sky;sea", "sea;sky", "sun;sky;sea", "skyline", "sea", None]
    index = labelled(tmp_path, labels, ["train"] * 7)
    classes = find_classes(index)
    assert classes.counts == {"sea": 4, "sky": 4, "skyline": 1, "sun": 1}
    assert index.select(classes.condition("sky")).tolist() == [0, 1, 2, 3]
    assert index.select(classes.condition("sun")).tolist() == [3]


def test_an_empty_index_has_none(tmp_path):
    assert find_classes(labelled(tmp_path, [])).names == ()
