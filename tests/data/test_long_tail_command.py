import json
import subprocess
import sys

import pytest
from PIL import Image

from data.digits import create_source
from data.long_tail_command import main
from data.manifest import read_split
from data.split import make_split

DIGITS = ["--source", "./data/digits.py"]


def test_makes_prints_plots_and_writes_the_split(tmp_path, capsys):
    out, plot = tmp_path / "split.json", tmp_path / "curve.png"
    arguments = ["--imbalance_factor", "10", "--seed", "3", "--out", str(out), "--plot", str(plot)]
    assert main(DIGITS + arguments) == 0
    printed = capsys.readouterr().out
    source = create_source()
    split = read_split(out, source)
    expected = make_split(source, imbalance_factor=10, seed=3)
    assert split.train.tolist() == expected.train.tolist()
    assert json.loads(out.read_text())["digest"] in printed
    assert f"{len(split.train):7d}" in printed and "    1     144  " in printed
    with Image.open(plot) as image:
        assert image.width > 500


def test_groups_count_every_class_once(capsys):
    assert main([*DIGITS, "--imbalance_factor", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith((" many", " medium", " few"))]
    assert [int(row[1]) for row in rows] == [1, 6, 3]
    assert sum(int(row[2]) for row in rows) == 420


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*DIGITS, "--imbalance_factor", "0.5"], "imbalance_factor is 0.5"),
        (["--source", "absent.py"], "absent.py"),
        ([*DIGITS, "--params", "{folder: x}"], "folder"),
        ([*DIGITS, "--params", "{a"], "not YAML"),
        ([*DIGITS, "--params", "7"], "expected a mapping"),
        ([*DIGITS, "--plot", "curve.xyz"], "curve.png"),
        ([*DIGITS, "--plot", "curve"], "curve.png"),
        ([*DIGITS, "--out", "main.py/split.json"], "--out main.py/split.json"),
        ([*DIGITS, "--plot", "main.py/curve.png"], "--plot main.py/curve.png"),
        ([*DIGITS, "--out", "config"], "--out config"),
        ([*DIGITS, "--seed", "-1"], "seed is -1"),
        ([*DIGITS, "--seed", "-1", "--open_classes", "2"], "seed is -1"),
        ([*DIGITS, "--validation_per_class", "-1"], "validation_per_class is -1"),
        ([*DIGITS, "--open_classes", "-1"], "open_classes is -1"),
        ([*DIGITS, "--imbalance_factor", "10", "--mu", "nan"], "mu is nan"),
    ],
)
def test_mistakes_give_one_line_and_status_2(capsys, arguments, said):
    assert main(arguments) == 2
    printed, message = capsys.readouterr()
    assert printed == ""
    assert said in message and message.startswith("error: ") and message.count("\n") == 1


def test_runs_as_a_module():
    command = [sys.executable, "-m", "data.long_tail", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--imbalance_factor" in result.stdout and "examples:" in result.stdout


def test_a_wrong_plot_name_leaves_the_split_unwritten(tmp_path):
    out = tmp_path / "split.json"
    assert main([*DIGITS, "--out", str(out), "--plot", str(tmp_path / "curve.xyz")]) == 2
    assert not any(tmp_path.iterdir())


def test_an_error_while_writing_is_one_line(tmp_path, capsys, monkeypatch):
    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("data.long_tail_command.write_json", full)
    assert main([*DIGITS, "--out", str(tmp_path / "split.json")]) == 2
    message = capsys.readouterr().err
    assert "No space left" in message and message.count("\n") == 1
