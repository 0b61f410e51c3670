"""MAP along the sizes of classes, against a loop over queries."""

import time

import numpy as np
import pytest

pytest.importorskip("faiss")

from drawn_codes import draw_codes
from page_client import COUNTS, made_index

from search import page_curve
from search.opening import create_index
from search.page_curve import ClassCurve, compute
from search.page_side import Side
from search.rows import make_rows
from search.store import Coding
from utils.errors import UserError


def expected_precision(distances, relevant):
    """Average precision, the mean over all orders of ties: by drawing many orders."""
    rng, scores = np.random.default_rng(0), []
    for _ in range(300):
        order = np.lexsort((rng.random(len(distances)), distances))
        hits = relevant[order]
        ranks = np.flatnonzero(hits) + 1
        scores.append((np.arange(1, len(ranks) + 1) / ranks).mean())
    return np.mean(scores)


def test_map_of_each_class_is_the_mean_over_orders_of_ties(tmp_path):
    index = made_index(tmp_path, 60)
    found = compute(Side(index, "made"))
    rows = index.rows(index.select()).to_pylist()
    bits = np.unpackbits(index.codes(index.select()), axis=1)
    database = [row["id"] for row in rows if row["split"] == "database"]
    labels = np.array([row["label"] for row in rows])
    for each in found["classes"]:
        own = [row for row in rows if row["label"] == each["name"]]
        relevant = labels[database] == each["name"]
        scores = [
            expected_precision((bits[row["id"]] != bits[database]).sum(1), relevant)
            for row in own
            if row["split"] == "query"
        ]
        assert each["map"] == pytest.approx(np.mean(scores), abs=0.02)
        assert each["count"] == COUNTS[each["name"]]
    assert (found["queries"], found["database"]) == (15, 45)
    assert found["groups"]["few"] == pytest.approx(found["classes"][3]["map"])


def labelled(folder, labels, splits):
    index = create_index(folder, Coding(24))
    codes = draw_codes(np.random.default_rng(0), len(labels), 24)
    index.add(codes, make_rows(len(labels), label=labels, split=splits))
    return Side(index, "some")


@pytest.mark.parametrize(
    ("labels", "splits", "words"),
    [
        (["a", "a"], ["query", "query"], "0 of split 'database'"),
        (["a", "a"], [None, None], "0 images of split 'query'"),
        ([None, None], ["query", "database"], "no labels"),
        (["a", None], ["query", "database"], "has no label"),
    ],
)
def test_what_an_index_lacks_is_said(tmp_path, labels, splits, words):
    with pytest.raises(UserError, match=words):
        compute(labelled(tmp_path, labels, splits))


def test_sizes_need_not_be_known(tmp_path):
    found = compute(labelled(tmp_path, ["a", "b", "a", "b"], ["query", "query", *["database"] * 2]))
    assert [each["count"] for each in found["classes"]] == [None, None]
    assert found["groups"] == {"many": None, "medium": None, "few": None}


def test_of_several_labels_one_shared_is_relevant(tmp_path):
    labels = ["a;b", "a", "b", "c"]
    found = compute(labelled(tmp_path, labels, ["query", *["database"] * 3]))
    assert found["queries"] == 1
    assert 0.5 < found["map"] <= 1  # two of three are relevant


def test_of_too_many_queries_some_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(page_curve, "MOST_PAIRS", 45 * 6)
    found = compute(Side(made_index(tmp_path, 60), "made"))
    assert (found["queries"], found["queries_there"]) == (6, 15)


def ready(curve):
    """The curve once it is computed."""
    for _ in range(1000):
        found = curve.get()
        if found["state"] != "computing":
            return found
        time.sleep(0.01)
    raise AssertionError("it is never computed")


def test_it_is_computed_once_and_again_when_the_index_changed(tmp_path, monkeypatch):
    side, calls = Side(made_index(tmp_path, 60), "made"), []
    monkeypatch.setattr(page_curve, "compute", lambda side: calls.append(1) or compute(side))
    curve = ClassCurve(side)
    assert curve.get() == {"state": "computing"}
    assert ready(curve) is ready(curve)
    assert len(calls) == 1
    side.version += 1
    assert ready(curve)["state"] == "ready"
    assert len(calls) == 2


def test_a_failure_is_said_and_does_not_last_for_ever(tmp_path, monkeypatch):
    def fail(side):
        raise ZeroDivisionError

    monkeypatch.setattr(page_curve, "compute", fail)
    found = ready(ClassCurve(Side(made_index(tmp_path, 4), "made")))
    assert found == {"state": "missing", "why": "it failed: ZeroDivisionError"}
