"""What the page says of an index's images, against plain loops."""

import numpy as np
import pytest

pytest.importorskip("faiss")

from drawn_codes import plain_search
from page_client import CODE_LENGTH, made_index

from search import page_side
from search.opening import open_index
from search.page_side import Asked, Side, mark_right
from search.rows import make_rows
from utils.errors import UserError


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return made_index(tmp_path_factory.mktemp("made"))


@pytest.fixture
def side(index):
    return Side(index, "made")


@pytest.mark.parametrize("item", [0, 7, 199])
@pytest.mark.parametrize("k", [1, 10, 150])
def test_nearest_are_those_of_a_plain_search_without_the_image_itself(index, side, item, k):
    ids, codes = index.select(), index.codes(index.select())
    found = side.nearest(codes[item : item + 1], Asked(k), item)
    wanted = [each for each in plain_search(codes[item], codes, ids.tolist(), 200)
              if each[0] != item]  # fmt: skip
    assert [(row["id"], row["distance"]) for row in found["items"]] == wanted[:k]
    assert [row["rank"] for row in found["items"]] == list(range(1, k + 1))
    shown = [distance for _, distance in wanted[:k]]
    assert [row["tied"] for row in found["items"]] == [shown.count(each) for each in shown]
    assert found["cut_tie"] == (wanted[k][1] == wanted[k - 1][1])
    assert found["searched"] == 200


def test_filters_are_joined_by_and(index, side):
    asked = Asked(200, "cat", "database", "id >= 50")
    rows = index.rows(index.select()).to_pylist()
    chosen = [row for row in rows if row["label"] == "cat" and row["split"] == "database"]
    wanted = [row["id"] for row in chosen if row["id"] >= 50]
    found = side.nearest(index.codes([0]), asked)
    assert sorted(row["id"] for row in found["items"]) == wanted
    assert found["searched"] == len(wanted)
    assert not found["cut_tie"]
    assert [row["id"] for row in side.browse(asked, 0, 0)["items"]] == wanted


def test_pages_of_a_mixed_order_hold_every_image_once(side):
    pages = [side.browse(Asked(30, where="id < 100"), offset, 5) for offset in range(0, 120, 30)]
    found = [row["id"] for page in pages for row in page["items"]]
    assert sorted(found) == list(range(100))
    assert found != sorted(found)
    assert {page["total"] for page in pages} == {100}


def test_a_wrong_condition_is_one_line(side):
    with pytest.raises(UserError, match="expected"):
        side.nearest(np.zeros((1, 3), np.uint8), Asked(where="label ="))


def test_right_is_what_shares_a_label():
    items = [{"label": "a"}, {"label": "b;a"}, {"label": "b"}, {"label": ""}]
    mark_right(items, "a;c")
    assert [item["right"] for item in items] == [True, True, False, None]
    mark_right(items, "")
    assert [item["right"] for item in items] == [None] * 4


def test_a_whole_path_outside_of_the_folder_is_shown_by_its_name_alone(tmp_path):
    index = made_index(tmp_path, 3)
    index.add(index.codes([0]), make_rows(1, path=["/home/someone/private/cat.png"]))
    assert Side(index, "made").rows([3])[0]["path"] == "cat.png"


def test_what_another_process_adds_and_removes_is_seen(tmp_path, monkeypatch):
    side = Side(made_index(tmp_path, 20), "made")
    other = open_index(tmp_path / "index")
    code = np.full((1, CODE_LENGTH // 8), 255, np.uint8)
    other.add(code, make_rows(1, label=["owl"], split=["test"]))
    other.remove([3])
    side.refresh()
    assert len(side.index) == 20  # the last look was just now
    monkeypatch.setattr(page_side, "REFRESHED", 0.0)
    side.refresh()
    assert side.nearest(code, Asked(1))["items"][0]["label"] == "owl"
    assert side.info()["splits"] == ["test", "query", "database"]
    assert side.version == 1
    assert side.browse(Asked(50), 0, 0)["total"] == 20
    with pytest.raises(UserError, match="no id 3"):
        side.rows([3])


def test_an_image_removed_between_search_and_rows_is_searched_again(side, monkeypatch):
    whole, calls = side.rows, []

    def rows(ids):
        calls.append(ids)
        if len(calls) == 1:
            raise UserError("the index has no id 4; it was removed or never given")
        return whole(ids)

    monkeypatch.setattr(side, "rows", rows)
    assert len(side.nearest(side.index.codes([0]), Asked(5))["items"]) == 5
    assert len(calls) == 2
