"""The benchmark checks the metrics before it times them, and writes what it printed."""

import csv

from benchmarks.evaluation import main


def test_a_small_run_is_checked_timed_and_recorded(tmp_path, capsys):
    path = tmp_path / "new" / "evaluation.csv"
    arguments = ["--queries", "40", "--database", "300", "--bits", "16", "--repeats", "1"]
    for _ in range(2):
        main([*arguments, "--record", str(path)])
    rows = list(csv.DictReader(path.open()))
    assert [row["database"] for row in rows] == ["300", "300"]
    assert float(rows[0]["evaluate_ms"]) > 0
    assert "largest AP difference" in capsys.readouterr().out
