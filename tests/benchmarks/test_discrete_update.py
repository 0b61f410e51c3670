"""The benchmark of the discrete update compares with the dense formulation before it times."""

import csv

import pytest

from benchmarks import discrete_update

SMALL = ["--samples", "30", "--bits", "8", "--repeats", "1"]


@pytest.mark.parametrize("kind", [[], ["--multi_label"]])
def test_a_row_a_size_is_recorded_and_codes_agree(tmp_path, kind):
    path = tmp_path / "update.csv"
    arguments = ["--rows", "200", "5000", "--dense_rows", "1000", *SMALL, *kind]
    assert discrete_update.main([*arguments, "--record", str(path)]) == 0
    small, large = csv.DictReader(path.open())
    assert float(small["differing_bits"]) == 0
    assert float(small["times_faster_than_dense"]) > 0
    assert (large["rows"], large["dense_ms"]) == ("5000", "")
    assert float(large["rows_per_second"]) > 0


def test_codes_that_differ_are_a_failure(monkeypatch, capsys):
    monkeypatch.setattr(
        discrete_update, "dense_update", lambda codes, *_: -discrete_update_codes(codes, *_)
    )
    assert discrete_update.main(["--rows", "200", *SMALL]) == 1


discrete_update_codes = discrete_update.dense_update
