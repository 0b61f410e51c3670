"""A config holds what YAML, a checkpoint and a file's name can hold, and no more than is sane."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import yaml

from engine.plain_values import DEEPEST, check_text, plain_copy, shown
from utils.errors import UserError

PLAIN = {"a": {"b": [1, -2.5, "é 漢字", None, True], "c": (1, [2])}, "d": {}}


def test_plain_values_come_back_equal_and_apart():
    shared = [1]
    copied = plain_copy({**PLAIN, "e": shared, "f": shared})
    assert copied == {**PLAIN, "e": [1], "f": [1]}
    assert copied["e"] is not copied["f"]
    assert copied["a"]["b"] is not PLAIN["a"]["b"]


def test_kinds_of_dicts_lists_and_floats_become_plain():
    copied = plain_copy(OrderedDict(rate=np.float64(0.5)))
    assert yaml.safe_load(yaml.safe_dump(copied)) == {"rate": 0.5}


def nested(depth):
    value = 0
    for _ in range(depth):
        value = [value]
    return value


def endless():
    value = {}
    value["x"] = value
    return value


def doubled(times):
    value = ["x", "x"]
    for _ in range(times):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "a.b is nan, expected a finite number"),
        (float("-inf"), "a.b is -inf"),
        (2**63, "a.b is a number of 64 bits, expected at most 63"),
        (-(2**4000), "a.b is a number of 4001 bits"),
        (b"x", "a.b is b'x' (bytes), expected text"),
        ({1, 2}, "a.b is {1, 2} (set)"),
        (Path("x"), "a.b is PosixPath('x') (PosixPath)"),
        (np.int64(3), "a.b is np.int64(3) (int64)"),
        (print, "a.b is <built-in function print>"),
        ({5: 1}, "a key of a.b is 5, expected text"),
        ({"": 1}, "a key of a.b is empty"),
        ("x\0y", r"a.b is 'x\x00y', expected text without control characters"),
        ("x\ny", r"a.b is 'x\ny'"),
        ("\ud800", r"a.b is '\ud800'"),
        ("x" * 256, "a.b is a text of 256 characters"),
        ("é" * 128, "a.b is a text of 128 characters"),  # 256 bytes
        ("x/" * 2049, "a.b is a text of 4098 characters"),
        (nested(DEEPEST), "a.b holds too many"),
        (endless(), "a.b.x.x"),
        (doubled(40), "a.b holds too many"),
    ],
)
def test_what_no_file_could_hold_is_refused_by_its_key(value, words):
    with pytest.raises(UserError) as error:
        plain_copy({"a": {"b": value}})
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_the_longest_texts_and_deepest_lists_are_taken():
    value = {"a": nested(DEEPEST - 1), "b": "x" * 255, "c": "é" * 127, "d": ("x" * 15 + "/") * 256}
    assert plain_copy(value) == value
    assert check_text("a", "b") == "a"


def test_what_is_shown_is_short():
    assert shown([0.5, "x"]) == "[0.5, 'x']"
    assert len(shown(["x" * 1000] * 1000)) < 1000
