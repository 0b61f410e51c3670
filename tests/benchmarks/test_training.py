"""The training benchmark measures what it says, compares within one run and outlives a failure."""

import csv
import math

import pytest

from benchmarks import bench, measures, timing, training

COLUMNS = [
    "date", "measure", "backbone", "batch_size", "image_size", "accelerate", "value", "unit",
    "against", "against_value", "ratio", "target", "gpu", "gpus", "torch", "commit",
]  # fmt: skip
BACKBONE = "shufflenet_v2_x0_5"
TINY = {
    "device": "cpu", "backbones": BACKBONE, "image_size": 32, "batch_size": 4,
    "small_batch_size": 2, "images": 16, "codes": 12, "queries": 10, "database": 40, "jpegs": 8,
    "links": 2, "workers": 0, "steps": 1, "loop_steps": 1, "repeats": 1, "accelerate": "none",
}  # fmt: skip


def run(*arguments, data_root):
    tiny = [text for name, value in TINY.items() for text in (f"--{name}", str(value))]
    return training.main([*tiny, "--data_root", str(data_root), *arguments])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The rows of a tiny run of every measure."""
    folder = tmp_path_factory.mktemp("speed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "COPY_BYTES", 1 << 16)
        patch.setattr(timing, "MATRIX_SIZE", {"cpu": 64})
        patch.setattr("benchmarks.conventional.WARM_UP", 1)
        assert run("--record", str(folder / "speed.csv"), data_root=folder) == 0
    with (folder / "speed.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_every_measure_of_a_cpu_has_a_row(recorded):
    extra = {"matrix_rate", "copy_bandwidth", "flops_share", "evaluation_seconds"}
    extra |= {"streaming_wait", "streaming_first_batch", "streaming_conventional"}
    # The first has rows of other names, the last is measured only if asked for.
    without_rows = {"ceiling", "peak_memory", *measures.ASKED}
    expected = (measures.ONCE.keys() | measures.EACH.keys()) - without_rows | extra
    assert {row["measure"] for row in recorded} == expected


def test_the_records_columns_are_these(recorded):
    assert list(recorded[0]) == COLUMNS


def test_values_are_finite_and_positive(recorded):
    for row in recorded:
        assert 0 < float(row["value"]) < math.inf, row


def test_ratios_are_the_value_over_what_it_is_compared_with(recorded):
    compared = [row for row in recorded if row["ratio"]]
    assert len(compared) >= 9
    for row in compared:
        expected = float(row["value"]) / float(row["against_value"])
        assert float(row["ratio"]) == pytest.approx(expected, rel=1e-4)


def test_measures_that_share_a_figure_use_the_same_one(recorded):
    rows = {row["measure"]: row for row in recorded}
    assert rows["epoch"]["against_value"] == rows["bare_step"]["value"]
    assert rows["streaming"]["against_value"] == rows["bare_step"]["value"]
    assert rows["small_batch"]["against_value"] == rows["epoch"]["value"]
    assert rows["conventional"]["value"] == rows["epoch"]["value"]


def test_a_failing_measure_is_one_line_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    def fails(_, backbone):
        raise ValueError("two\nlines")
        yield

    def works(_, backbone):
        yield bench.Figure("coding", 1.0, "images/s", backbone)

    monkeypatch.setattr(training, "EACH", {"epoch": fails, "coding": works})
    assert run("--only", "epoch", "coding", data_root=tmp_path) == 1
    out, err = capsys.readouterr()
    assert err.startswith(f"epoch of {BACKBONE} failed: ValueError: two lines (tests/benchmarks")
    assert err.count("\n") == 1
    assert "coding" in out


@pytest.mark.parametrize("arguments", [["--steps", "0"], ["--workers", "-1"]])
def test_wrong_numbers_are_one_line_and_status_2(tmp_path, capsys, arguments):
    assert run(*arguments, data_root=tmp_path) == 2
    message = capsys.readouterr().err
    assert arguments[0] in message and message.count("\n") == 1


def test_several_processes_refuse_what_one_measures(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run("--only", "epoch", "evaluation", data_root=tmp_path) == 2
    assert "--only evaluation" in capsys.readouterr().err


def test_a_whole_run_is_timed_from_start_to_exit(tmp_path, capsys):
    record = tmp_path / "speed.csv"
    figures = tmp_path / "digits.csv"
    arguments = ["--only", "whole_run", "--run", "config/Digits_LT/pca_sign.py"]
    arguments += ["--run_record", str(figures)]
    assert training.main([*arguments, "--device", "cpu", "--record", str(record)]) == 0
    (row,) = csv.DictReader(figures.open())
    assert row["method"] == "pcah"
    (row,) = csv.DictReader(record.open())
    assert (row["measure"], row["backbone"], row["unit"]) == ("whole_run", "pca_sign", "s")
    assert float(row["value"]) > 0
