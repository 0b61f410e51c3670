"""The comparison prints each run's own figures."""

import json

import pytest

from benchmarks.compare import main


def test_a_folder_without_figures_is_one_line_and_status_2(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "no readable metrics.json" in capsys.readouterr().err


def test_rows_are_the_runs_figures(tmp_path, capsys):
    import numpy as np

    from retrieval.codes import make_codes, save_codes
    from retrieval.report import write_report

    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        labels = np.repeat(np.arange(3), 4)
        codes = make_codes(
            query_codes=rng.choice([-1, 1], (12, 8)),
            database_codes=rng.choice([-1, 1], (12, 8)),
            query_labels=labels,
            database_labels=labels,
            train_class_counts=[200, 50, 5],
        )
        (tmp_path / name).mkdir()
        save_codes(tmp_path / name / "codes.npz", **vars(codes))
        found = next(iter(write_report(codes, tmp_path / name).values()))
        found |= {"method": f"method_{name}", "imbalance_factor": None, "seconds": {"train": 1.5}}
        (tmp_path / name / "metrics.json").write_text(json.dumps(found))
    assert main([str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in ("a", "b"):
        value = json.loads((tmp_path / name / "metrics.json").read_text())["map"]
        (line,) = [line for line in lines if f"method_{name}" in line]
        assert f"{value:.4f}" in line
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{}", "lacks"),
        ("[]", "no table"),
        ('{"groups": null}', "groups.many"),
        ('{"map_interval_95": [0, 1]}', "lacks"),
        ("\xff", "no readable"),
    ],
)
def test_figures_of_another_kind_are_one_line_and_status_2(tmp_path, capsys, content, says):
    (tmp_path / "metrics.json").write_bytes(content.encode("latin-1"))
    assert main([str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert says in message and message.startswith("error: ") and message.count("\n") == 1
