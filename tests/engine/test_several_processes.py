"""A run by two processes is the run of one: same weights, one set of files."""

import json
import signal

import pytest
import torch
from small_config import make_config

import engine.train
from engine.checkpoint import LAST
from engine.experiment import test_only as run_test_only
from engine.experiment import train_and_test
from engine.launch import run_processes
from utils import distributed
from utils.log import start_logging
from utils.stop_signals import Stopped

HEADS = {"direct": "./models/direct_head.py", "meta": "./models/meta_embedding_head.py"}


def _config(folder, head):
    """Without random crops or batch statistics nothing depends on who sees which image."""
    return make_config(
        folder,
        head,
        augmentation={"crop_scale": [1.0, 1.0], "crop_ratio": [1.0, 1.0], "flip": False},
        networks={
            "feat_model": {"def_file": "./models/pixels.py"},
            "hash_head": {"def_file": HEADS[head], "params": {"in_features": 192}},
        },
        sampler="class_aware",
        num_epochs=3,
        optimizer={"name": "SGD", "params": {"lr": 0.1}},
    )


def _stop_rank_1_at_step_5(patch):
    """Let one process alone get a signal in the middle of an epoch, and soon the other ask it."""
    taken, step = 0, engine.train.step

    def stopping(*arguments):
        nonlocal taken
        taken += 1
        if taken == 5 and distributed.rank() == 1:
            signal.raise_signal(signal.SIGTERM)
        return step(*arguments)

    patch.setattr("engine.train.step", stopping)


def _train_and_stop(folder, head):
    """Train with batch statistics of each process's own, uninterrupted and stopped."""
    whole, stopped = (make_config(folder / name, head) for name in ("whole", "stopped"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.evaluate.write_results", lambda run, scored: None)
        patch.setattr("engine.save_points.ASK_SECONDS", 0.0)  # ask after each step
        train_and_test(whole)
        _stop_rank_1_at_step_5(patch)
        with pytest.raises(Stopped):
            train_and_test(stopped)
        if distributed.is_main():
            (folder / LAST).write_bytes((folder / "stopped" / LAST).read_bytes())
        train_and_test(stopped, resume=True)


def _train(folder, head):
    with distributed.joined(torch.device("cpu")):
        start_logging()
        _train_and_stop(folder, head)
        config = _config(folder / "run", head)
        train_and_test(config, record=str(folder / "record.csv"))
        train_and_test(config, resume=True)
        metrics = run_test_only(config)
        (folder / f"map_{distributed.rank()}").write_text(str(metrics["map"]))


@pytest.fixture(scope="module", params=["direct", "meta"])
def folders(request, tmp_path_factory):
    alone, together = (tmp_path_factory.mktemp(name) for name in ("alone", "together"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.evaluate.write_results", lambda run, scored: None)
        train_and_test(_config(alone / "run", request.param), record=str(alone / "record.csv"))
    run_processes(2, _train, together, request.param)
    return alone, together


def test_the_weights_are_those_of_one_process(folders):
    alone, together = (
        torch.load(each / "run" / LAST, weights_only=True)["networks"] for each in folders
    )
    for network, state in alone.items():
        for name, value in state.items():
            torch.testing.assert_close(together[network][name], value, msg=name)


def test_figures_are_those_of_one_process_on_every_rank(folders):
    alone, together = (json.loads((each / "run" / "metrics.json").read_text()) for each in folders)
    assert together["map"] == pytest.approx(alone["map"], abs=1e-6)
    assert together["groups"] == pytest.approx(alone["groups"], abs=1e-6)
    assert alone["environment"]["processes"] == 1
    assert together["environment"]["processes"] == 2
    for rank in range(2):
        assert float((folders[1] / f"map_{rank}").read_text()) == together["map"]


def test_a_signal_to_one_stops_both_and_they_go_on_to_the_same_bits(folders):
    together = folders[1]
    stopped = torch.load(together / LAST, weights_only=True)
    assert (stopped["epoch"], stopped["step"]) == (1, 1)
    statistics = [
        each["buffers"]["feat_model.layers.1.running_mean"] for each in stopped["processes"]
    ]
    assert not torch.equal(*statistics)
    ends = [torch.load(together / name / LAST, weights_only=True) for name in ("whole", "stopped")]
    for network, state in ends[0]["networks"].items():
        for name, value in state.items():
            assert torch.equal(value, ends[1]["networks"][network][name]), name


def test_only_rank_0_writes(folders):
    together = folders[1]
    assert len((together / "record.csv").read_text().splitlines()) == 2
    log = (together / "run" / "log.txt").read_text()
    assert log.count("epoch 1: classification") == 1
    names = [
        sorted(path.name for path in (each / "run").iterdir() if "tfevents" not in path.name)
        for each in folders
    ]
    assert [name for name in names[0] if name not in names[1]] == []
