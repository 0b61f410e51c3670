import csv
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import search as benchmark
from benchmarks.search import Clustered, draw_uniform, made_rows, main, measure_search
from benchmarks.search_plot import main as plot
from search.store import Hits


@pytest.fixture
def record(tmp_path, monkeypatch):
    """A record of a small run."""
    monkeypatch.setattr("benchmarks.search.ADDED", 100)
    monkeypatch.setattr("benchmarks.search.BATCH", 20)
    monkeypatch.setattr("benchmarks.search.SINGLE", 2)
    monkeypatch.setattr("benchmarks.search.SLOW", 2)
    monkeypatch.setattr("benchmarks.search.REPEATS", 1)
    monkeypatch.setattr("benchmarks.search.EFFORTS", {"mih": (0, 1)})
    monkeypatch.setattr("benchmarks.search.equals_oracle", lambda draw, rng: True)
    path = tmp_path / "search.csv"
    options = ["--items", "11000", "--kinds", "mih", "--record", str(path)]
    assert main(options) == 0
    return path


def test_a_run_records_every_store_and_structure_and_can_be_drawn(record, tmp_path):
    rows = list(csv.DictReader(record.open()))
    found = {(row["measure"], row["method"]) for row in rows}
    for method in ("scan", "faiss_flat", "mih", "lance"):
        assert {("search_single", method), ("search_batch", method)} <= found
    for method in ("flat", "lance"):
        assert {("open", method), ("add_10000", method), ("build", method)} <= found
    exact = [row for row in rows if row["method"] in ("scan", "faiss_flat", "lance")]
    assert {row["recall_at_10"] for row in exact if "search" in row["measure"]} == {"1.0"}
    assert all(float(row["value"]) > 0 for row in rows)
    assert plot([str(record), "-o", str(tmp_path / "plot.png")]) == 0
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_without_a_record_there_is_nothing_to_draw(tmp_path, capsys):
    assert plot([str(tmp_path / "none.csv")]) == 2
    assert "no searches" in capsys.readouterr().err


def test_recall_counts_ties_and_not_what_is_missing_or_far():
    exact = Hits(np.arange(10)[None], np.array([[0] * 5 + [3] * 5], np.int32))
    given = Hits(np.arange(50, 60)[None], np.array([[0] * 5 + [3] * 3 + [4, -1]], np.int32))
    rows = list(measure_search("x", "", lambda query: given, np.zeros((1, 8), np.uint8), exact))
    assert {row["recall_at_10"] for row in rows} == {0.8}


def test_the_oracle_sees_a_search_that_is_wrong(monkeypatch):
    class Wrong:
        def add(self, codes, rows):
            self.count = getattr(self, "count", 0) + len(codes)

        def search(self, query, k):
            return SimpleNamespace(
                ids=np.zeros((len(query), k), int), distances=np.zeros((len(query), k), int)
            )

    monkeypatch.setattr(benchmark, "create_index", lambda *given: Wrong())
    assert not benchmark.equals_oracle(draw_uniform, np.random.default_rng(0))


def test_clustered_codes_are_what_the_file_says_of_them(monkeypatch):
    monkeypatch.setattr(benchmark, "CLASSES", 10)
    monkeypatch.setattr(benchmark, "IMBALANCE", 1)
    codes = Clustered()(59_000, np.random.default_rng(1))
    distinct = len(np.unique(codes.view(np.uint64))) / len(codes)
    assert distinct == pytest.approx(0.86, abs=0.05)
    distances = np.bitwise_count(codes[:100].view(np.uint64) ^ codes[100:].view(np.uint64)[:, 0])
    assert np.sort(distances, 1)[:, 9].mean() == pytest.approx(3.4, abs=0.6)


def test_rows_are_numbered_on():
    rows = made_rows(5, 3).to_pylist()
    assert [row["path"] for row in rows] == [f"train/images/{n}.jpg" for n in (5, 6, 7)]
    assert rows[2]["label"] == "7"
    assert rows[0]["split"] == "database"
