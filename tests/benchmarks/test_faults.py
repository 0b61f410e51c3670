"""The fault benchmark counts every failure, a death or delay of its process among them."""

import csv
import time
from pathlib import Path

import pytest

from benchmarks import faults
from benchmarks.fault_findings import Finding, find

MADE_UP = """
import os, subprocess, time
from benchmarks.fault_findings import Finding, find

def run(count, seed, folder):
    (folder / "of_its_own").touch(exist_ok=False)
    if seed == 1:
        os.kill(os.getpid(), 9)
    if seed == 2:
        child = subprocess.Popen(["sleep", "600"])
        with open(os.environ["CHILD"], "w") as stream:
            stream.write(str(child.pid))
        time.sleep(600)
    if seed == 3:
        raise KeyError("unforeseen")
    return Finding("made_up", count, [], 0.5, {"resumed": 3.0})
"""


@pytest.fixture(autouse=True)
def _made_up_module(tmp_path, monkeypatch):
    (tmp_path / "made_up.py").write_text(MADE_UP)
    monkeypatch.syspath_prepend(tmp_path)  # which the process of its own is given too


@pytest.mark.parametrize(("seed", "words"), [(1, "died (SIGKILL)"), (3, "died (exit status 1)")])
def test_a_death_is_a_failure(seed, words):
    found = find("made_up", 5, seed, 60)
    assert found.name == "made_up"
    assert found.tried == 0
    assert words in found.failures[0]


def test_a_hang_is_a_failure_and_ends_what_it_started(tmp_path, monkeypatch):
    monkeypatch.setenv("CHILD", str(tmp_path / "child"))
    found = find("made_up", 5, 2, 1.5)
    assert "not done after 2 s" in found.failures[0]
    state = Path("/proc") / (tmp_path / "child").read_text() / "stat"
    deadline = time.monotonic() + 10  # the system's, to carry out the kill
    while state.exists() and state.read_text().split()[2] not in "ZX":
        assert time.monotonic() < deadline


def test_what_was_found_comes_back_and_its_folder_goes():
    found = find("made_up", 5, 0, 60)
    assert found == Finding("made_up", 5, [], 0.5, {"resumed": 3.0})


@pytest.fixture
def _find_one_failure(monkeypatch):
    def find_one(module, count, seed, seconds):
        name = module.removeprefix("benchmarks.")
        failures = ["image 7 of seed 3"] if name == "mutated_images" else []
        return Finding(name, count, failures, 2.0, {"refused": 4.0, "slowest": "image 1"})

    monkeypatch.setattr(faults, "find", find_one)


@pytest.mark.usefixtures("_find_one_failure")
def test_a_row_a_kind_is_recorded_and_a_failure_is_the_exit_status(tmp_path, capsys):
    record = tmp_path / "faults.csv"
    arguments = ["--kills", "7", "--seed", "3", "--record", str(record)]
    assert faults.main(arguments) == 1
    rows = {row["faults"]: row for row in csv.DictReader(record.open())}
    assert list(rows) == list(faults.COUNTS)
    assert (rows["kills"]["tried"], rows["kills"]["failures"], rows["kills"]["seed"]) == (
        "7", "0", "3",
    )  # fmt: skip
    assert rows["mutated_images"]["failures"] == "1"
    assert rows["kills"]["figures"] == "refused 4; slowest image 1"
    printed = capsys.readouterr()
    assert printed.err == "mutated_images: image 7 of seed 3\n"
    assert len(printed.out.splitlines()) == 1 + len(rows)


@pytest.mark.usefixtures("_find_one_failure")
def test_no_failure_is_status_0():
    assert faults.main(["--only", "kills", "mutated_configs"]) == 0


@pytest.mark.parametrize("wrong", [["--kills", "0"], ["--time_limit", "nan"]])
def test_wrong_usage_is_one_line(wrong, capsys):
    assert faults.main(wrong) == 2
    assert capsys.readouterr().err.count("\n") == 1
