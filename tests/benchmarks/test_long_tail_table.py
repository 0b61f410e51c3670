"""The long-tail table's runs: each cell once, by the commands a user would type."""

import csv
import json
import os
import shlex
from pathlib import Path

import pytest

from benchmarks import long_tail_table
from benchmarks.long_tail_table import METHODS, Stage, main
from engine.config import load_config

FAKE_MAIN = """
import json, os, sys, time
from datetime import UTC, datetime
from pathlib import Path
sys.path.insert(0, {project!r})
from engine.config import load_config
from engine.recipe import recipe
from engine.records import COLUMNS, append_record
from main import parse_arguments

options = parse_arguments()
for path in options.config:
    config = load_config(path, options.opts)
    training, folder = config.training_opt, Path(config.training_opt.log_dir)
    starts = {{Path(each.weights) for each in config.networks.values() if each.weights}}
    assert all(path.exists() for path in starts)
    known = {{path: json.loads((path.parent / "metrics.json").read_text()) for path in starts}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "final_model_checkpoint.pth").touch()
    if training.seed == 13:
        sys.exit(1)
    time.sleep(60 * Path("slow").exists())
    metrics = dict.fromkeys(COLUMNS) | {{
        "method": training.method, "imbalance_factor": training.imbalance_factor,
        "code_length": training.code_length, "seed": training.seed,
        "map": 0.25 + training.seed / 100, "date": datetime.now(UTC).isoformat(),
        "recipe": recipe(config, {{path: each["recipe"] for path, each in known.items()}}),
        "groups": {{}}, "seconds": {{}}, "counts": {{"train": 1}},
        "environment": {{"gpu": os.environ["CUDA_VISIBLE_DEVICES"], "torch": "", "commit": ""}},
    }}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    if training.seed != 14:
        append_record(options.record, metrics, config.to_dict())
"""


@pytest.fixture
def call(tmp_path, monkeypatch):
    """The tool in an empty folder, on the digits' configs and a main.py that does not train."""
    configs = Path("config/Digits_LT").resolve()
    stages = [Stage(f"{configs}/stage_1.py"), Stage(f"{configs}/stage_2_meta_embedding.py")]
    hashnet = Stage(f"{configs}/hashnet.py", ("training_opt.num_epochs=3",))
    methods = {"hashnet": (hashnet,), "direct": (stages[0],), "ours": tuple(stages)}
    (tmp_path / "main.py").write_text(FAKE_MAIN.format(project=str(Path.cwd())))
    monkeypatch.setattr(long_tail_table, "METHODS", methods)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def call(text):
        return main([*shlex.split(text), "--bits", "16", "--record", "record.csv"])

    return call


def _recorded():
    with Path("record.csv").open(newline="") as stream:
        return [(row["method"], row["imbalance_factor"], row["seed"], row["gpu"])
                for row in csv.DictReader(stream)]  # fmt: skip


def test_every_cell_is_run_once_and_shown(call, capsys):
    assert call("--imbalance 1 50 --seeds 0 2 --gpus 1") == 0
    cells = [(method, factor, seed) for method in ("hashnet", "direct", "ours")
             for factor in ("1", "50") for seed in "02"]  # fmt: skip
    assert sorted(_recorded()) == sorted((*cell, "0") for cell in cells)
    out = capsys.readouterr().out
    assert out.startswith("8 runs to do, 1 at a time\n")  # direct is stage 1 of ours
    (line,) = [line for line in out.splitlines() if "] ours, IF 50, 16 bits, seed 2:" in line]
    assert line.endswith(" s, MAP direct 0.2700, ours 0.2700")
    assert "50  ours     0.2600 ± 0.0141 (2)" in out


def test_what_is_recorded_is_not_run_again(call, capsys):
    assert call("--imbalance 50 --seeds 0 --gpus 0 --methods direct hashnet") == 0
    assert call("--imbalance 50 --seeds 0 1 --gpus 0 --methods direct hashnet") == 0
    assert len(_recorded()) == len(set(_recorded())) == 4
    assert "2 runs to do" in capsys.readouterr().out
    assert call("--imbalance 50 --seeds 0 --gpus 0 --methods direct --since 2999-01-01") == 1
    assert len(_recorded()) == 5


def test_what_was_recorded_by_another_recipe_is_run_anew_with_what_builds_on_it(call, capsys):
    assert call("--imbalance 50 --seeds 0 --gpus 0 --methods ours") == 0
    changed = "--imbalance 50 --seeds 0 --gpus 0 --methods ours --opts training_opt.warmup_epochs=1"
    assert call(changed) == 0
    assert len(_recorded()) == 4
    rows = Path("record.csv").read_text().replace(",0.25,", ",0.75,", 2)  # of the first recipe
    Path("record.csv").write_text(rows)
    capsys.readouterr()
    assert call("--imbalance 50 --seeds 0 --gpus 0 --methods ours") == 0
    assert "50  ours    0.7500 (1)" in capsys.readouterr().out
    assert call(changed) == 0
    assert "50  ours    0.2500 (1)" in capsys.readouterr().out
    assert call(f"{changed} --dry_run") == 0
    assert call("--imbalance 50 --seeds 0 --gpus 0 --methods ours direct --dry_run") == 0
    assert capsys.readouterr().out == ""  # the record holds both


def test_stage_2_starts_from_a_recorded_stage_1_whose_folder_is_there(call, capsys):
    call("--imbalance 50 --seeds 0 1 --gpus 0 --methods direct")
    checkpoint = Path("logs/Digits_LT/if50_16bits_seed1/stage_1/final_model_checkpoint.pth")
    later = checkpoint.stat().st_mtime + 100
    os.utime(checkpoint, (later, later))  # as a run that was interrupted leaves it
    capsys.readouterr()
    assert call("--imbalance 50 --seeds 0 1 --gpus 0 --methods direct ours --dry_run") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "stage_2" in first and "stage_1" not in first
    assert "stage_1" in second and "stage_2" in second
    assert call("--imbalance 50 --seeds 0 --gpus 0 --methods ours") == 0
    assert [row[0] for row in _recorded()] == ["direct", "direct", "ours"]


def test_a_stage_1_folder_of_another_recipe_is_not_started_from(call, capsys):
    call("--imbalance 50 --seeds 0 --gpus 0 --methods direct")
    path = Path("logs/Digits_LT/if50_16bits_seed0/stage_1/metrics.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"recipe": "another"}))
    capsys.readouterr()
    assert call("--imbalance 50 --seeds 0 --gpus 0 --methods ours --dry_run") == 0
    assert "stage_1" in capsys.readouterr().out


def test_options_at_imbalance_factor_1_and_the_users_reach_the_commands(call, capsys):
    assert call("--imbalance 1 50 --seeds 0 --methods hashnet --dry_run --opts data.n_max=9") == 0
    one, fifty = map(shlex.split, capsys.readouterr().out.splitlines())
    assert {"training_opt.num_epochs=3", "data.n_max=9"} <= set(one)
    assert "data.n_max=9" in fifty and "training_opt.num_epochs=3" not in fifty
    assert fifty[:2] == ["python", "main.py"] and fifty[-2:] == ["--record", "record.csv"]
    assert not Path("record.csv").exists()


def test_a_failed_run_is_a_line_with_its_log_and_the_others_go_on(call, capsys):
    arguments = "--imbalance 50 --seeds 13 14 0 --gpus 0 --methods hashnet"
    assert call(arguments) == 1
    out = capsys.readouterr().out.splitlines()
    log = Path("logs/long_tail_table/if50_16bits_seed13_hashnet.log")
    (line,) = [line for line in out if "seed 13:" in line]
    assert "failed with status 1" in line and line.endswith(str(log)) and log.exists()
    assert "recorded no row" in next(line for line in out if "seed 14:" in line)
    assert [row[2] for row in _recorded()] == ["0"]
    assert call(arguments) == 1
    assert "2 runs to do" in capsys.readouterr().out


def test_several_processes_share_the_gpus(call):
    arguments = "--imbalance 50 --seeds 0 1 2 3 --gpus 2 --processes_per_gpu 2 --methods hashnet"
    assert call(arguments) == 0
    assert sorted(row[3] for row in _recorded()) == ["0", "0", "1", "1"]


def test_only_the_visible_gpus_are_used(call, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    assert call("--imbalance 50 --seeds 0 1 --gpus 2 --methods hashnet") == 0
    assert sorted(row[3] for row in _recorded()) == ["5", "6"]
    assert call("--imbalance 50 --seeds 2 --gpus 3 --methods hashnet") == 2
    assert "names 2" in capsys.readouterr().err


def test_the_time_limit_leaves_runs_for_the_next_call(call, capsys):
    arguments = "--imbalance 50 --seeds 0 --gpus 0 --methods hashnet"
    Path("slow").touch()
    assert call(f"{arguments} --time_limit 0.5") == 0
    out = capsys.readouterr().out
    assert "stopped after" in out and "1 runs are left" in out
    assert not Path("record.csv").exists()
    Path("slow").unlink()
    assert call(arguments) == 0 and len(_recorded()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--processes_per_gpu 0", "--processes_per_gpu"),
        ("--time_limit 0", "--time_limit"),
        ("--opts training_opt.no_such=1", "no_such"),
        ("--gpus -1", "--gpus is -1"),
    ],
)
def test_mistakes_are_one_line_and_status_2(call, capsys, arguments, says):
    assert call(arguments) == 2
    message = capsys.readouterr().err
    assert says in message and message.startswith("error: ") and message.count("\n") == 1


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_name_is_that_of_its_last_configs_rows(name):
    assert load_config(METHODS[name][-1].config).training_opt.method == name


def test_a_methods_runs_differ_by_their_folders():
    folders = {load_config(stages[-1].config).training_opt.log_dir for stages in METHODS.values()}
    assert len(folders) == len(METHODS)


def test_the_readmes_options_of_balanced_classes_are_the_tables():
    text = Path("README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    line = next(line for line in text.splitlines() if "imbalance_factor=1 " in line)
    given = shlex.split(line)[2:]  # after `... --opts`
    assert set(given) == {"training_opt.imbalance_factor=1", *METHODS["direct"][0].balanced}
