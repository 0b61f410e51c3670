"""A record is a CSV row a run, added whole by however many runs at once."""

import csv
import multiprocessing
import os
from pathlib import Path

import pytest
from small_config import make_config

from engine.experiment import record_finished, train_and_test
from engine.records import COLUMNS, append_record, check_record
from utils.errors import UserError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config = make_config(tmp_path_factory.mktemp("recorded"))
    return train_and_test(config), config.to_dict()


def test_a_row_holds_the_runs_figures(tmp_path, finished):
    metrics, config = finished
    append_record(tmp_path / "new" / "r.csv", metrics, config)
    append_record(tmp_path / "new" / "r.csv", metrics, config)
    rows = list(csv.DictReader((tmp_path / "new" / "r.csv").open()))
    assert len(rows) == 2
    assert list(rows[0]) == COLUMNS
    assert float(rows[0]["map"]) == pytest.approx(metrics["map"], rel=1e-5)
    assert rows[0]["backbone"] == "small_cnn"
    assert rows[0]["recipe"] == metrics["recipe"] != ""
    assert rows[0]["commit"] == metrics["environment"]["commit"]
    assert rows[0]["map_many"] == ""  # no class has more than 100 images


def test_a_resumed_run_has_one_row_however_often_it_is_tested(tmp_path):
    config, path = make_config(tmp_path / "run"), tmp_path / "r.csv"
    train_and_test(config)
    for _ in range(2):
        train_and_test(config, resume=True, record=str(path))
    assert len(path.read_text().splitlines()) == 2
    record_finished(config, str(path))
    assert len(path.read_text().splitlines()) == 2
    path.unlink()
    record_finished(config, str(path))
    (row,) = csv.DictReader(path.open())
    assert float(row["map"]) > 0
    train_and_test(config, record=str(path))  # another run
    assert len(path.read_text().splitlines()) == 3


def test_a_record_of_before_recipes_goes_on_and_keeps_its_rows(tmp_path, finished):
    metrics, config = finished
    path = tmp_path / "r.csv"
    append_record(path, {**metrics, "seed": 7}, config)
    old = [line.rpartition(",")[0] for line in path.read_text().splitlines()]
    path.write_text("\n".join(old) + "\n")
    append_record(path, {**metrics, "seed": 7}, config, resumed=True)  # the same run
    assert len(path.read_text().splitlines()) == 2
    append_record(path, metrics, config)
    before, after = csv.DictReader(path.open())
    assert (before["seed"], before["recipe"]) == ("7", "")
    assert (after["seed"], after["recipe"]) == ("0", metrics["recipe"])


def test_rows_that_are_there_stay_as_they_were_written(tmp_path, finished):
    path = tmp_path / "r.csv"
    append_record(path, *finished)
    quoted = path.read_text().replace("small_cnn", '"small_cnn"').rstrip("\n")
    path.write_text(quoted)  # as another program writes it
    append_record(path, *finished)
    assert path.read_text().startswith(f"{quoted}\n")
    assert len(list(csv.DictReader(path.open()))) == 2


@pytest.mark.parametrize("row", ["1,2", ",".join("x" * 40)])
def test_a_row_of_another_length_is_named_before_training(tmp_path, row):
    (tmp_path / "r.csv").write_text(f"{','.join(COLUMNS)}\n{row}\n")
    with pytest.raises(UserError, match=r"row 1 has \d+ values, expected 29"):
        train_and_test(make_config(tmp_path / "run"), record=str(tmp_path / "r.csv"))
    assert not (tmp_path / "run").exists()


def test_figures_that_are_damaged_are_not_recorded(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match="holds no figures"):
        record_finished(make_config(tmp_path), str(tmp_path / "r.csv"))


def test_runs_that_record_at_once_lose_no_row(tmp_path, finished):
    path = tmp_path / "r.csv"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=append_record, args=(path, *finished)) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(list(csv.DictReader(path.open()))) == 8


def test_a_folder_is_no_record(tmp_path):
    with pytest.raises(UserError, match="not a readable CSV"):
        train_and_test(make_config(tmp_path / "run"), record=str(tmp_path))


def test_a_file_with_other_columns_is_refused_before_training(tmp_path):
    (tmp_path / "r.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="columns are not those"):
        train_and_test(make_config(tmp_path / "run"), record=str(tmp_path / "r.csv"))
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "r.csv").read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize("name", ["", "a_file/x.csv", "a_file/x/y.csv", "a\0b.csv", "x" * 300])
def test_a_record_that_cannot_be_written_is_refused_before_the_run(tmp_path, name):
    (tmp_path / "a_file").touch()
    with pytest.raises(UserError, match=r"^--record ") as raised:
        check_record(f"{tmp_path}/{name}")
    assert "\n" not in str(raised.value)


def test_a_record_that_is_new_or_has_its_columns_passes_unwritten(tmp_path):
    check_record(tmp_path / "new" / "folder" / "x.csv")
    assert not (tmp_path / "new").exists()
    (tmp_path / "x.csv").write_text(",".join(COLUMNS) + "\n")
    check_record(tmp_path / "x.csv")


def test_a_record_in_a_folder_that_is_only_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda folder, mode: Path(folder) != tmp_path)
    with pytest.raises(UserError, match="no folder that can be written"):
        check_record(tmp_path / "x.csv")
