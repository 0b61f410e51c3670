import logging
from dataclasses import replace

import numpy as np
import pytest

from data.images import open_images
from data.leakage import check_leakage, find_leaks
from data.split import make_split
from utils.errors import UserError


@pytest.fixture
def source(array_source):
    return array_source(train=[20, 20], test=[8, 8], open=[1])


def check(source, on_leak="error", **roles):
    split = replace(make_split(source, imbalance_factor=4), **roles)
    return check_leakage(open_images(source), source, split, on_leak)


def test_find_leaks_equals_a_double_loop():
    rng = np.random.default_rng(0)
    queries, others = (rng.integers(0, 40, count).tolist() for count in (30, 20))
    query_names = [f"q{i}" for i in range(30)]
    other_names = [f"o{i}" for i in range(20)]
    expected = []
    for name, content in zip(query_names, queries, strict=True):
        same = [o for o, other in zip(other_names, others, strict=True) if other == content]
        expected += [(name, same[0])] if same else []
    found = find_leaks(
        query_names, [bytes([c]) for c in queries], other_names, [bytes([c]) for c in others]
    )
    assert found == expected and expected


def test_disjoint_images_pass(source):
    assert check(source) == []


@pytest.mark.parametrize("query", [40, 56])
def test_a_copied_query_is_an_error_that_names_it(source, query):
    source.arrays[query] = source.arrays[3]
    with pytest.raises(UserError, match=r"1 queries .* image/000\d\d = image/00003") as error:
        check(source)
    assert "on_leak" in str(error.value) and f"image/{query:05d}" in str(error.value)


def test_a_query_that_is_itself_searched_is_an_error(source):
    with pytest.raises(UserError, match="image/00007 = image/00007"):
        check(source, query=np.array([7, 41]))


def test_many_leaks_are_counted_and_the_first_five_named(source, caplog):
    source.arrays[40:48] = source.arrays[0:8]
    with pytest.raises(UserError, match="8 queries") as error:
        check(source)
    assert str(error.value).count(" = ") == 5
    with caplog.at_level(logging.WARNING, "long_tail_hashing"):
        leaks = check(source, "warn")
    assert leaks == [(f"image/{40 + i:05d}", f"image/{i:05d}") for i in range(8)]
    assert "8 queries" in caplog.text


def test_validation_may_be_searched_but_not_trained_on(source):
    split = make_split(source, imbalance_factor=4)
    assert len(split.validation) and np.isin(split.validation, split.database).all()
    with pytest.raises(UserError):
        check(source, validation=split.train[:1])


def test_copies_under_another_name_are_found_among_files(write_images, tmp_path):
    from data.image_folder import create_source

    root = write_images({"train/a": 3, "train/b": 3, "test/a": 1, "test/b": 1})
    (root / "test/a/copy.png").write_bytes((root / "train/a/001.png").read_bytes())
    source = create_source(root)
    split = make_split(source)
    for cache_size in ("auto", None):
        leaks = check_leakage(open_images(source, cache_size), source, split, "warn")
        assert leaks == [("test/a/copy.png", "train/a/001.png")]


def test_unknown_policies_are_refused(source):
    with pytest.raises(UserError, match="'error' or 'warn'"):
        check(source, "ignore")
