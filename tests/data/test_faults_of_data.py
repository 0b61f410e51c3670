import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.faults import DataError, for_all, shown
from utils.errors import UserError


def halved(number):
    if number % 2:
        raise UserError(f"{number} is odd")
    return number // 2


@given(st.lists(st.integers(0, 9)))
def test_every_result_or_every_mistake(numbers):
    odd = [number for number in numbers if number % 2]
    if not odd:
        assert for_all(halved, numbers) == [number // 2 for number in numbers]
        return
    with pytest.raises(DataError) as error:
        for_all(halved, numbers)
    assert error.value.faults == [f"{number} is odd" for number in odd]
    more = f" (the first of {len(odd)} faults; --check_data lists all)" if len(odd) > 1 else ""
    assert str(error.value) == f"{odd[0]} is odd{more}"


def test_mistakes_of_mistakes_are_one_list():
    with pytest.raises(DataError) as error:
        for_all(lambda numbers: for_all(halved, numbers), [[1, 2], [4], [3, 5]])
    assert error.value.faults == ["1 is odd", "3 is odd", "5 is odd"]


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError):
        for_all(lambda number: 1 // number, [1, 0])


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_any_file_name_is_shown_on_one_line_that_can_be_written(name):
    found = shown(os.fsdecode(name))
    assert found.isprintable() and found.encode()


@pytest.mark.parametrize("name", ["a/b c.png", "é漢字.jpg", "x" * 255])
def test_plain_names_are_shown_as_they_are(name):
    assert shown(name) == name
