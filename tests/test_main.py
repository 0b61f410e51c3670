"""The command line: exit statuses, one line a mistake, nothing half-written."""

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import engine.train
from data.faults import DataError
from engine.build import check_config_parts
from engine.checkpoint import LAST, load_checkpoint
from engine.config import load_config
from main import main
from utils.folder_lock import locked

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


@pytest.fixture(scope="module")
def two_stages(tmp_path_factory):
    """The digits' two stages, run one after another in a folder; and the arguments that did."""
    folder = tmp_path_factory.mktemp("stages")
    configs = [str(Path(config).resolve()) for config in (DIGITS, STAGE_2)]
    arguments = ["--config", *configs, "--opts", "training_opt.num_epochs=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # their log_dirs are relative
        assert main(arguments) == 0
    runs = [folder / "logs/Digits_LT/if50_32bits_seed0" / Path(each).stem for each in configs]
    return folder, runs, arguments


def test_several_configs_run_one_after_another(two_stages):
    _, runs, _ = two_stages
    methods = [json.loads((run / "metrics.json").read_text())["method"] for run in runs]
    assert methods == ["direct", "ours"]


@pytest.mark.parametrize("missing", [[], ["metrics.json"], ["metrics.json", LAST]])
def test_of_several_configs_resume_skips_but_records_the_finished(
    two_stages, missing, tmp_path, monkeypatch, capsys
):
    folder, runs, arguments = two_stages
    record = tmp_path / "r.csv"
    monkeypatch.chdir(folder)
    resumed = []
    monkeypatch.setattr(
        "engine.experiment.train_and_test",
        lambda config, *, resume, record: resumed.append((config.training_opt.method, resume)),
    )
    for name in missing:
        (runs[1] / name).rename(runs[1] / f"away_{name}")
    try:
        assert main([*arguments, "--resume", "--record", str(record)]) == 0
    finally:
        for name in missing:
            (runs[1] / f"away_{name}").rename(runs[1] / name)
    assert f"{arguments[1]} is finished" in capsys.readouterr().err
    assert resumed == ([("ours", LAST not in missing)] if missing else [])
    assert len(record.read_text().splitlines()) == (2 if missing else 3)  # its header first


def test_resume_refuses_other_options_of_any_config_before_it_runs_one(two_stages, capsys):
    folder, _, arguments = two_stages
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*arguments, "training_opt.batch_size=16", "--resume"]) == 2
    assert "batch_size (was 32, is 16)" in capsys.readouterr().err


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


def _in_shell(code, streams):
    """What a shell prints that runs Python's `code`, then tells its status."""
    command = f'{sys.executable} -c "import sys, main; {code}" {streams}'
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("length", [1, 100_000])  # written at the end, or before
def test_output_that_nobody_reads_is_no_error(length):
    code = (
        f"main.run = lambda _: print('x' * {length}) or 0; sys.exit(main.main(['--config', 'x']))"
    )
    done = _in_shell(code, "| true; echo ${PIPESTATUS[0]}")
    assert (done.stdout, done.stderr) == ("141\n", "")


def test_a_broken_pipe_of_another_kind_is_an_error(monkeypatch):
    def fail(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr("main.run", fail)
    with pytest.raises(BrokenPipeError):
        main(["--config", DIGITS])


def test_files_take_no_place_of_streams_that_were_closed(tmp_path):
    code = "main.open_streams(); print('x'); print('x', file=sys.stderr); "
    code += f"sys.exit(open('{tmp_path / 'file'}', 'w').fileno() <= 2)"
    assert _in_shell(code, "<&- >&- 2>&-; echo $?").stdout == "0\n"


@pytest.fixture
def without_pictures(monkeypatch):
    """Figures without the page and pictures that show them, which take seconds."""
    with monkeypatch.context() as patch:
        patch.setattr("engine.evaluate.write_results", lambda run, scored: None)
        yield


def _at_step(monkeypatch, number, act):
    """Call `act` before the training step of this number."""
    taken, step = 0, engine.train.step

    def acting(*arguments):
        nonlocal taken
        taken += 1
        if taken == number:
            act()
        return step(*arguments)

    monkeypatch.setattr("engine.train.step", acting)


def _long(tmp_path, *extra, opts=()):
    """A run of twelve steps, three epochs, with a validation after each."""
    opts = ["training_opt.num_epochs=3", "training_opt.evaluate_interval=1", *opts]
    return _arguments(tmp_path, *extra, opts=["training_opt.batch_size=4", *opts])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_ends_with_its_status_and_resume_goes_on(
    number, status, tmp_path, monkeypatch, capsys, without_pictures
):
    _folder(tmp_path)
    with monkeypatch.context() as patch:
        _at_step(patch, 2, lambda: signal.raise_signal(number))
        assert main(_long(tmp_path)) == status
    name = signal.Signals(number).name
    assert f"stopped by {name}; --resume goes on" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "run" / LAST)["step"] == 2
    assert main(_long(tmp_path, "--resume")) == 0
    assert "resumed after epoch 0 and 2 steps" in (tmp_path / "run" / "log.txt").read_text()


def _one_error(capsys):
    lines = capsys.readouterr().err.strip().splitlines()
    assert not any("Traceback" in line for line in lines), lines
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1
    assert lines[-1] == errors[0]
    return errors[0]


@pytest.mark.parametrize(
    ("size", "name"),
    [(0, "log.txt"), (50_000, "_checkpoint.pth")],
    ids=["a full disk", "a disk nearly full"],
)
def test_a_full_disk_is_one_line_and_leaves_the_checkpoint(
    size, name, tmp_path, monkeypatch, capsys, without_pictures
):
    """A limit on the size of files stands for the disk's: what is written fails as there."""
    _folder(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        _at_step(
            monkeypatch, 6, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        )
        assert main(_long(tmp_path)) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    error = _one_error(capsys)
    assert f"{name} cannot be written" in error
    assert "--resume" in error
    assert load_checkpoint(tmp_path / "run" / LAST)["epoch"] == 1
    assert not list((tmp_path / "run").glob(".tmp-*"))
    assert main(_long(tmp_path, "--resume")) == 0


def test_data_that_vanishes_is_one_line_and_leaves_the_checkpoint(tmp_path, monkeypatch, capsys):
    _folder(tmp_path)
    opts = ["training_opt.num_workers=0", "data.cache_size=null"]
    _at_step(monkeypatch, 6, lambda: (tmp_path / "Pets").rename(tmp_path / "away"))
    assert main(_long(tmp_path, opts=opts)) == 2
    assert str(tmp_path / "Pets") in _one_error(capsys)
    assert load_checkpoint(tmp_path / "run" / LAST)["epoch"] == 1


def test_no_gpu_memory_is_one_line_that_names_what_to_lower(tmp_path, monkeypatch, capsys):
    def fail():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    _folder(tmp_path)
    _at_step(monkeypatch, 6, fail)
    assert main(_long(tmp_path)) == 2
    error = _one_error(capsys)
    assert "out of GPU memory (for 2.00 GiB)" in error
    assert "training_opt.batch_size (4)" in error


def test_a_folder_in_use_is_refused_to_training_and_testing(tmp_path, capsys, without_pictures):
    _folder(tmp_path)
    assert main(_arguments(tmp_path)) == 0
    ready, done = os.pipe()
    holder = os.fork()
    if not holder:
        with locked(tmp_path / "run"):
            os.write(done, b".")
            time.sleep(60)
    try:
        os.read(ready, 1)
        for extra in ([], ["--test"], ["--resume"]):
            capsys.readouterr()
            assert main(_arguments(tmp_path, *extra)) == 2
            assert "run is in use by another run" in _one_error(capsys)
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
    assert main(_arguments(tmp_path, "--test")) == 0


def test_the_data_root_may_come_from_the_environment(tmp_path, monkeypatch):
    _folder(tmp_path)
    monkeypatch.setenv("LTH_DATA_ROOT", str(tmp_path))
    arguments = _arguments(tmp_path)
    arguments.remove(f"training_opt.data_root={tmp_path}")
    assert main(arguments) == 0


def test_check_data_lists_all_mistakes_of_label_files(tmp_path, monkeypatch, capsys):
    def refuse(config):
        raise DataError(["labels.txt line 3: no class", "labels.txt line 9: größe"])

    monkeypatch.setattr("engine.experiment.open_source", refuse)
    assert main(_arguments(tmp_path, "--check_data")) == 2
    assert "line 3: no class\nlabels.txt line 9" in capsys.readouterr().out


def test_names_that_a_terminal_cannot_show_are_escaped(tmp_path, monkeypatch):
    _folder(tmp_path, classes=("größe", "dog"), images=1)
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    (tmp_path / "Pets" / "train" / "größe" / "0.png").write_bytes(b"broken")
    assert main(_arguments(tmp_path, "--check_data")) == 2
    terminal.flush()
    assert b"gr\\xf6\\xdfe" in terminal.buffer.getvalue()
