"""A published run is whole, says how to use it, and gives the run's own figures."""

import json
import os
import shlex
import subprocess

import numpy as np
import pytest
import torch
import yaml
from image_files import by_name, write_images
from small_config import make_config

import main as command_line
from engine import encode
from engine.checkpoint import BEST, LAST, load_checkpoint, save_checkpoint
from engine.config import check_config, load_config
from engine.experiment import test_only as run_test_only
from engine.experiment import train_and_test
from engine.model_card import _epochs
from engine.publish import main, publish
from engine.recipe import checkpoint_recipe
from engine.run import open_run
from retrieval.codes import load_codes
from retrieval.image_codes import load_image_codes
from utils.errors import UserError


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("publishing")
    train_and_test(make_config(folder / "run"))
    publish(folder / "run", folder / "out" / "model", "CC BY 4.0")
    return folder


def _alternate(log_dir):
    values = make_config(log_dir).to_dict()
    values |= {"engine": "alternate", "alternate": {"samples": 24, "iterations": 2, "epochs": 1}}
    values["training_opt"] |= {"num_epochs": 0, "imbalance_factor": None, "code_length": [4, 8]}
    values["networks"]["hash_head"] = {"def_file": "./models/cascade_head.py"}
    values["criterions"] = {"codes": {"def_file": "./loss/adsh.py"}}
    return check_config({k: v for k, v in values.items() if v is not None}, "alternate.py")


def test_the_folder_reads_back_as_the_runs_best_checkpoint(published):
    found = load_checkpoint(published / "out" / "model")
    best = load_checkpoint(published / "run" / BEST)
    for network, state in best["state_dict_best"].items():
        assert found["state_dict_best"][network].keys() == state.keys()
        for name, tensor in state.items():
            assert torch.equal(found["state_dict_best"][network][name], tensor)
            assert found["state_dict_best"][network][name].dtype == tensor.dtype
    names = ("epoch", "best_epoch", "best_map", "source", "split_digest", "class_names", "recipe")
    for name in names:
        assert found[name] == best[name]
    config = load_config(str(published / "out" / "model" / "config.yaml"))
    assert checkpoint_recipe(config, found) == best["recipe"] != ""
    assert found["preprocessing"]["held_size"] == 8


def test_the_folder_holds_what_is_promised_and_no_path_of_the_publishers_machine(published):
    folder = published / "out" / "model"
    expected = "README.md checksums.txt config.yaml environment.json metrics.json model.json "
    expected += "model.safetensors preprocessing.json split.json"
    assert sorted(path.name for path in folder.iterdir()) == expected.split()
    assert os.listdir(published / "out") == ["model"]  # noqa: PTH208
    for path in folder.iterdir():
        assert str(published).encode() not in path.read_bytes()
    run = published / "run"
    assert json.loads((folder / "split.json").read_text()) == json.loads(
        (run / "split.json").read_text()
    )
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["checkpoint"]["path"] = BEST
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    config = check_config(yaml.safe_load((folder / "config.yaml").read_text()), "config.yaml")
    assert config.training_opt.device == "auto"


def test_sha256sum_agrees_with_the_checksums(published):
    given = ["sha256sum", "--strict", "--check", "checksums.txt"]
    subprocess.run(given, cwd=published / "out" / "model", check=True, capture_output=True)


def test_the_card_shows_the_figures_and_its_commands_work_as_written(published, monkeypatch):
    card = (published / "out" / "model" / "README.md").read_text()
    metrics = json.loads((published / "run" / "metrics.json").read_text())
    for value in (metrics["map"], *metrics["groups"].values()):
        assert ("-" if value is None else f"{value:.4f}") in card
    assert metrics["split_digest"] in card and "CC BY 4.0" in card

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # the run was on a CPU
    name, *commands = card.split("```\n")[1].splitlines()
    assert name == "FOLDER=model"  # where it was written is of no use to others
    monkeypatch.chdir(published / "out")
    config = make_config(published / "again")
    write_images(open_run(config).dataset.source, published / "out" / "my_images")
    mains = {"engine.encode": encode.main, "main.py": command_line.main}
    for command in commands:
        program, *words = shlex.split(command.replace("$FOLDER", "model"))
        assert program == "python"
        words = words[1:] if words[0] == "-m" else words
        assert mains[words[0]](words[1:]) == 0
    expected = by_name(load_codes(published / "run" / "codes.npz"))
    assert by_name(load_image_codes("codes.npz")) == expected
    assert by_name(load_codes("logs/published/model/codes.npz")) == expected


def test_a_training_may_start_from_a_published_network(published, tmp_path):
    networks = {
        "feat_model": {
            "def_file": "./models/small_cnn.py",
            "params": {"width": 4},
            "weights": str(published / "out" / "model"),
        }
    }
    run = open_run(make_config(tmp_path / "next", networks=networks))
    best = load_checkpoint(published / "run" / BEST)["state_dict_best"]["feat_model"]
    for name, tensor in run.model.feat_model.state_dict().items():
        assert torch.equal(tensor, best[name])


def test_a_run_with_learned_database_codes_is_tested_and_codes_as_before(tmp_path):
    train_and_test(_alternate(tmp_path / "run"))
    publish(tmp_path / "run", tmp_path / "model")
    run_test_only(_alternate(tmp_path / "again"), checkpoint=str(tmp_path / "model"))
    write_images(open_run(_alternate(tmp_path / "run")).dataset.source, tmp_path / "images")
    for length in (4, 8):
        expected = load_codes(tmp_path / "run" / f"{length}bits" / "codes.npz")
        found = load_codes(tmp_path / "again" / f"{length}bits" / "codes.npz")
        np.testing.assert_array_equal(found.query_codes, expected.query_codes)
        np.testing.assert_array_equal(found.database_codes, expected.database_codes)
        given = ["--checkpoint", str(tmp_path / "model"), str(tmp_path / "images")]
        given += ["--device", "cpu", "--code_length", str(length)]
        output = tmp_path / f"{length}.npz"
        assert encode.main([*given, "-o", str(output)]) == 0
        coded = by_name(load_image_codes(output))
        queries = zip(expected.query_names.tolist(), expected.query_codes, strict=True)
        assert all(coded[name] == code.tobytes() for name, code in queries)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "database_codes.npz` holds them" in card and "--code_length 4" in card


def _retrain(run):
    checkpoint = load_checkpoint(run / BEST)
    save_checkpoint(run / BEST, {**checkpoint, "best_epoch": checkpoint["best_epoch"] + 1})


def _shallow(run):
    values = yaml.safe_load((run / "config.yaml").read_text())
    values |= {"engine": "shallow", "hasher": {"def_file": "./models/lsh.py"}, "criterions": {}}
    (run / "config.yaml").write_text(yaml.safe_dump(values))


def _without_groups(run):
    metrics = json.loads((run / "metrics.json").read_text())
    del metrics["groups"]
    (run / "metrics.json").write_text(json.dumps(metrics))


UNFIT = {
    "no run": (lambda run: (run / "config.yaml").unlink(), "is no run's folder"),
    "no test yet": (lambda run: (run / "metrics.json").unlink(), "it holds no metrics.json"),
    "no checkpoint": (lambda run: (run / BEST).unlink(), f"it holds no {BEST}"),
    "trained since": (_retrain, "metrics.json is of another checkpoint"),
    "shallow": (_shallow, "shallow method, which keeps no weights"),
    "other figures": (_without_groups, "holds other figures"),
    "half a file": (lambda run: (run / "metrics.json").write_text('{"map"'), "cannot be read"),
}


@pytest.mark.parametrize("fault", UNFIT)
def test_what_cannot_be_published_is_one_line_and_leaves_nothing(
    fault, published, tmp_path, capsys
):
    spoil, said = UNFIT[fault]
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "split.json", "metrics.json", BEST, LAST):
        (run / name).write_bytes((published / "run" / name).read_bytes())
    spoil(run)
    assert main([str(run), "-o", str(tmp_path / "out" / "model")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {run}") and said in error
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_not_written_over(published, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="is there already"):
        publish(published / "run", tmp_path)
    assert os.listdir(tmp_path) == ["mine.txt"]  # noqa: PTH208


def test_a_failure_on_the_way_leaves_no_folder(published, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.publish.write_text", full)  # the card's, which comes last
    with pytest.raises(UserError, match=r"model cannot be written \(No space left"):
        publish(published / "run", tmp_path / "model")
    assert not any(tmp_path.iterdir())


def test_help_shows_examples_and_exit_status(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("examples:", "--licence", "Exit status"))


def test_a_card_says_where_nothing_was_trained():
    about = {"best_epoch": 0, "best_map": 0.5}
    assert _epochs(0, about).startswith("none: a memory beside weights")
    assert _epochs(3, about | {"best_epoch": 2}).startswith(
        "3; the weights are those after epoch 2"
    )
