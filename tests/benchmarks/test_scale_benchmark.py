import csv

import pytest

from benchmarks import scale

pytest.importorskip("faiss")


def measured(tmp_path, monkeypatch, *options):
    """The rows of a small run, by measure and method, its steps in this process."""
    monkeypatch.setattr(scale, "_in_process", scale._measured)
    monkeypatch.setattr(scale, "STRETCH", 5000)
    monkeypatch.setattr(scale, "BLOCK", 1000)
    record = tmp_path / "scale.csv"
    given = ["--items", "12000", "--folder", str(tmp_path / "indexes"), "--record", str(record)]
    assert scale.main([*given, *options]) == 0
    with record.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_it_measures_an_index_and_leaves_nothing(tmp_path, monkeypatch):
    rows = measured(tmp_path, monkeypatch)
    value = {(row["measure"], row["method"], row["effort"]): float(row["value"]) for row in rows}
    assert value["bytes", "ids.npy", ""] - 12_000 * 8 < 200
    assert value["verify", "0 faults", ""] >= 0
    recall = {row["method"]: float(row["recall_at_10"]) for row in rows if row["recall_at_10"]}
    assert recall["scan"] == 1 and recall["ivf"] > 0.9
    assert all(int(row["resident_mib"]) >= int(row["own_mib"]) > 50 for row in rows)
    assert not list((tmp_path / "indexes").iterdir())


def test_it_measures_what_a_cluster_job_does_besides_coding(tmp_path, monkeypatch):
    rows = measured(tmp_path, monkeypatch, "--plan")
    assert [row["measure"] for row in rows] == [
        "write_parts", "missing_of_parts", "finish", "missing_of_output", "bytes",
    ]  # fmt: skip
    assert 12_000 * 8 < float(rows[-1]["value"]) < 12_000 * 100
