"""The command line: exit statuses, one line a mistake, nothing half-written."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.build import check_config_parts
from engine.config import load_config
from main import main

DIGITS = "config/Digits_LT/stage_1.py"
STAGE_2 = "config/Digits_LT/stage_2_meta_embedding.py"
CONFIGS = sorted(map(str, Path("config").glob("*/*.py")))


def _one_of_each_kind():
    """Configs that a smoke run can tell apart: it brings data of its own, and loads no weights."""
    kinds = {}
    for path in CONFIGS:
        config = load_config(path)
        networks = [(each.def_file, str(each.params)) for each in config.networks.values()]
        losses = [each.def_file for each in config.criterions.values()]
        several = isinstance(config.training_opt.code_length, list)
        start = config.alternate and (config.alternate.start, config.alternate.base is None)
        multi_label = bool({"NUS_WIDE", "MIRFlickr"} & set(Path(path).parts))
        kind = (
            *(str(networks), str(losses), str(config.memory), config.engine, str(config.hasher)),
            *(several, start, multi_label),
        )
        kinds.setdefault(kind, path)
    return list(kinds.values())


@pytest.mark.parametrize("config", CONFIGS)
def test_every_config_is_valid(config):
    check_config_parts(load_config(config))


@pytest.mark.parametrize("config", _one_of_each_kind())
def test_a_config_passes_its_smoke_run(config, capsys):
    assert main(["--config", config, "--smoke"]) == 0
    assert "smoke run passed" in capsys.readouterr().out


def test_help_shows_examples_and_exit_status(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("--opts", "examples:", "--smoke", "Exit status"))


def _folder(root, classes=("cat", "dog"), images=8):
    rng = np.random.default_rng(0)
    for subset, count in (("train", images), ("test", 2)):
        for name in classes:
            folder = root / "Pets" / subset / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def _arguments(tmp_path, *extra, opts=()):
    """A short run of the digits config on an image folder."""
    return [
        "--config",
        DIGITS,
        *extra,
        "--opts",
        f"training_opt.data_root={tmp_path}",
        f"training_opt.log_dir={tmp_path / 'run'}",
        "training_opt.imbalance_factor=null",
        "training_opt.num_epochs=1",
        "training_opt.batch_size=8",
        "data={def_file: ./data/image_folder.py, params: {folder: Pets}, validation_per_class: 2}",
        *opts,
    ]


def test_ones_own_folder_of_images_trains_tests_and_is_checked(tmp_path, capsys):
    _folder(tmp_path)
    assert main(_arguments(tmp_path)) == 0
    assert (tmp_path / "run" / "metrics.json").exists()
    assert main(_arguments(tmp_path, "--test")) == 0
    assert main(_arguments(tmp_path, "--check_data")) == 0
    assert "Pets" in capsys.readouterr().out


def _no_root(tmp_path):
    return []


def _empty_class(tmp_path):
    _folder(tmp_path)
    (tmp_path / "Pets" / "train" / "bird").mkdir()
    return []


def _broken_image(tmp_path):
    _folder(tmp_path)
    (tmp_path / "Pets" / "train" / "cat" / "3.png").write_bytes(b"\x89PNG broken")
    return []


def _leak(tmp_path):
    _folder(tmp_path)
    leaked = (tmp_path / "Pets" / "train" / "cat" / "0.png").read_bytes()
    (tmp_path / "Pets" / "test" / "cat" / "0.png").write_bytes(leaked)
    return []


def _option(option):
    def prepare(tmp_path):
        _folder(tmp_path)
        return [option]

    return prepare


MISTAKES = {
    "missing data root": (_no_root, ["Pets", "does not exist", "LTH_DATA_ROOT"]),
    "empty class": (_empty_class, ["bird"]),
    "unreadable image": (_broken_image, ["train/cat/3.png", "cannot be read"]),
    "leaked query": (_leak, ["test/cat/0.png", "train/cat/0.png", "warn"]),
    "wrong key": (_option("training_opt.sed=1"), ["training_opt.sed", "'seed'"]),
    "wrong type": (_option("training_opt.seed=x"), ["training_opt.seed", "a whole number"]),
    "code length 0": (_option("training_opt.code_length=0"), ["code_length is 0"]),
    "IF below 1": (_option("training_opt.imbalance_factor=0.5"), ["imbalance_factor is 0.5"]),
    "class count": (_option("training_opt.num_classes=7"), ["num_classes is 7", "2 known classes"]),
    "width 0": (_option("networks.feat_model.params.width=abc"), ["feat_model", "abc"]),
    "a file as log_dir": (
        _option("training_opt.log_dir=README.md"),
        ["README.md cannot be made a folder"],
    ),
    "missing stage 1": (
        _option("networks.feat_model.weights=none.pth"),
        ["none.pth does not exist"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_status_2_and_leaves_no_run(mistake, tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("LTH_DATA_ROOT", raising=False)
    prepare, words = MISTAKES[mistake]
    assert main(_arguments(tmp_path, opts=prepare(tmp_path))) == 2
    errors = capfd.readouterr().err.strip().splitlines()
    assert len(errors) == 1, errors
    assert errors[0].startswith("error: ")
    assert all(word in errors[0] for word in words), errors[0]
    assert not (tmp_path / "run").exists()


def test_a_leak_may_be_turned_into_a_warning(tmp_path, capfd):
    _leak(tmp_path)
    assert main(_arguments(tmp_path, opts=["data.on_leak=warn"])) == 0
    assert "test/cat/0.png" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--confg", DIGITS], "--config"),
        (["--config", DIGITS, "--test", "--resume"], "not allowed with"),
        (["--config", DIGITS, "--checkpoint", "x.pth"], "--checkpoint is what --test loads"),
        (["--config", DIGITS, "--smoke", "--record", "x.csv"], "--record needs final figures"),
        (["--config", "config/Digits_LT/pca_sign.py", "--resume"], "nothing to resume"),
        (["--config", DIGITS, DIGITS], "several configs have one log_dir"),
        (["--config", DIGITS, STAGE_2, "--test", "--checkpoint", "x.pth"], "is of one config"),
    ],
)
def test_wrong_usage_is_status_2_in_one_line(arguments, word):
    done = subprocess.run([sys.executable, "main.py", *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert word in done.stderr


def test_several_configs_run_one_after_another(tmp_path, monkeypatch):
    configs = [str(Path(config).resolve()) for config in (DIGITS, STAGE_2)]
    monkeypatch.chdir(tmp_path)  # their log_dirs are relative
    assert main(["--config", *configs, "--opts", "training_opt.num_epochs=1"]) == 0
    runs = [tmp_path / "logs/Digits_LT/if50_32bits_seed0" / Path(each).stem for each in configs]
    methods = [json.loads((run / "metrics.json").read_text())["method"] for run in runs]
    assert methods == ["direct", "ours"]


def test_a_mistake_in_the_second_config_is_found_before_the_first_runs(tmp_path, capsys):
    broken = tmp_path / "broken.py"
    broken.write_text(Path(DIGITS).read_text() + "config['networks']['x'] = {'def_file': 'none'}")
    opts = ["--opts", f"training_opt.log_dir={tmp_path / 'run'}"]
    assert main(["--config", DIGITS, str(broken), *opts]) == 2
    assert "broken.py" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def _torchrun(*arguments):
    starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.run([*starter, "main.py", *arguments], capture_output=True, text=True)


def test_torchruns_processes_make_one_run(tmp_path):
    _folder(tmp_path)
    done = _torchrun(*_arguments(tmp_path, opts=["training_opt.device=cpu"]))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 1: validation") == 1
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("epoch 1: validation") == 1
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["map"] > 0


def test_torchruns_processes_run_several_configs(tmp_path):
    _folder(tmp_path)
    second = tmp_path / "second.py"
    opts = ["training_opt.device=cpu", f"training_opt.log_dir={tmp_path}/{{method}}"]
    second.write_text(Path(DIGITS).read_text().replace('"method": "direct"', '"method": "again"'))
    arguments = _arguments(tmp_path, opts=opts)
    arguments.insert(2, str(second))
    done = _torchrun(*arguments)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / name / "metrics.json").exists() for name in ("direct", "again"))


def test_a_cluster_without_its_variables_is_told_which(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("os._exit", sys.exit)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit, match="2"):
        main(_arguments(tmp_path, opts=["training_opt.device=cpu"]))
    assert "RANK, MASTER_ADDR, MASTER_PORT is not set" in capsys.readouterr().err


def test_a_mistake_ends_all_of_torchruns_processes_and_leaves_no_run(tmp_path):
    _broken_image(tmp_path)
    done = _torchrun(*_arguments(tmp_path, opts=["training_opt.device=cpu"]))
    assert done.returncode != 0
    assert "train/cat/3.png cannot be read" in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_interrupted_run_says_how_to_go_on(monkeypatch, capsys):
    def interrupt(*_, **__):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("engine.experiment.train_and_test", interrupt)
    assert main(["--config", DIGITS]) == 130
    assert "stopped by SIGINT; --resume goes on" in capsys.readouterr().err


def test_the_data_root_may_come_from_the_environment(tmp_path, monkeypatch):
    _folder(tmp_path)
    monkeypatch.setenv("LTH_DATA_ROOT", str(tmp_path))
    arguments = _arguments(tmp_path)
    arguments.remove(f"training_opt.data_root={tmp_path}")
    assert main(arguments) == 0
