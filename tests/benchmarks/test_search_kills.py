import numpy as np
import pytest

from benchmarks.search_kills import CODE_LENGTH, Write, after, check, code_of, kill_writers
from search.index import create_index
from search.rows import make_rows
from search.store import Coding


def test_a_writer_that_is_killed_loses_nothing_it_acknowledged(tmp_path):
    tally = kill_writers(tmp_path / "index", 3)
    assert tally.faults == []
    assert tally.writes + tally.midway >= 3


@pytest.fixture
def index(tmp_path):
    index = create_index(tmp_path / "index", Coding(CODE_LENGTH))
    ids = np.arange(20)
    index.add(code_of(ids), make_rows(20, path=[f"{item}.png" for item in ids]))
    return index


def test_the_check_takes_a_write_under_way_as_done_or_not(index):
    for expected, begun in (
        (set(range(20)), None),
        (set(range(15)), Write("add", 15, 20, False)),
        (set(range(20)), Write("add", 20, 30, False)),
        (set(range(25)), Write("remove", 20, 25, False)),
    ):
        assert check(index.folder, expected, begun) == (set(range(20)), [])


def test_the_check_sees_what_was_lost_changed_or_made_up(index):
    lost = check(index.folder, set(range(25)), None)[1]
    assert lost == ["5 acknowledged items lost, 0 there that should not be"]
    risen = check(index.folder, set(range(18)), None)[1]
    assert risen == ["0 acknowledged items lost, 2 there that should not be"]
    half = check(index.folder, set(range(15)), Write("add", 15, 25, False))[1]
    assert half == ["0 acknowledged items lost, 5 there that should not be"]
    index.add(code_of(np.array([77])), make_rows(1))
    wrong = check(index.folder, set(range(21)), None)[1]
    assert wrong == ["codes changed", "rows changed"]
    (index.folder / "manifest.json").write_text("{")
    assert "damaged" in check(index.folder, set(range(21)), None)[1][0]


def test_after_a_write_its_ids_are_there_or_gone():
    assert after({1, 2}, Write("add", 3, 5, True)) == {1, 2, 3, 4}
    assert after({1, 2, 3}, Write("remove", 2, 9, True)) == {1}
    assert after({1}, Write("compact", 4, 4, True)) == {1}
