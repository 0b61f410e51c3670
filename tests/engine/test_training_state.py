"""A run that was stopped anywhere ends, once resumed, in the bits of one that was not."""

import io
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_config import make_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import engine.train
from engine import save_points, training_state
from engine.checkpoint import BEST, LAST, save_checkpoint
from engine.config import check_config
from engine.experiment import can_resume, train_and_test
from engine.run import open_run
from engine.train import build_training, train_batches
from engine.training_state import restore, save
from utils.errors import UserError
from utils.stop_signals import SIGNALS, Stopped

NOISY = """
import random
import numpy as np
import torch
from torch import nn

class Noisy(nn.Module):
    '''Draws from every generator that there is.'''

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.BatchNorm1d(16))
        self.dropout = nn.Dropout(0.3)
        self.out_features = 16

    def forward(self, images):
        noise = random.gauss(0, 1) + np.random.randn() if self.training else 0
        return self.dropout(self.layers(images)) + 0.1 * noise

def create_model():
    return Noisy()
"""
LEARNING = """
import torch
from torch import nn

class MovingCentre(nn.Module):
    '''A loss with a parameter and with a mean that moves.'''

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, codes):
        if self.training:
            self.mean.mul_(0.9).add_(codes.detach().mean(0), alpha=0.1)
        return (self.scale * (codes - self.mean)).square().mean()

def create_loss():
    return MovingCentre()
"""


def _minibatch(folder, head="direct", sampler="uniform"):
    (folder / "noisy.py").write_text(NOISY)
    (folder / "learning.py").write_text(LEARNING)
    return {
        "networks": {
            "feat_model": {"def_file": str(folder / "noisy.py")},
            "hash_head": {"def_file": f"./models/{head}_head.py"},
        },
        "criterions": {"centre": {"def_file": str(folder / "learning.py")}},
        "num_epochs": 4,
        "evaluate_interval": 2,
        "sampler": sampler,
        "scheduler": {"name": "CosineAnnealingLR", "params": {}},
        "warmup_epochs": 1,
    }


def _stage_1(folder, log_dir):
    return make_config(log_dir, **_minibatch(folder))


def _stage_2(folder, log_dir):
    changes = _minibatch(folder, "meta_embedding", "class_aware")
    return make_config(log_dir, "meta", **changes)


def _alternate(folder, log_dir):
    (folder / "noisy.py").write_text(NOISY)
    values = make_config(log_dir).to_dict()
    values["engine"] = "alternate"
    values["alternate"] = {"samples": 24, "iterations": 3, "epochs": 2}
    values["training_opt"] |= {"num_epochs": 0, "imbalance_factor": None, "evaluate_interval": 2}
    values["networks"] = {
        "feat_model": {"def_file": str(folder / "noisy.py")},
        "hash_head": {"def_file": "./models/flat_head.py"},
    }
    values["criterions"] = {"codes": {"def_file": "./loss/adsh.py"}}
    return check_config({k: v for k, v in values.items() if v is not None}, "alternate_config.py")


def _files(folder, log_dir):
    """Images that are read anew each time, with colours drawn for a batch at a time."""
    rng = np.random.default_rng(0)
    for name in "abcd":
        (folder / "images" / "train" / name).mkdir(parents=True, exist_ok=True)
        for number in range(12):
            pixels = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / "train" / name / f"{number}.png")
    return make_config(
        log_dir,
        data={
            "def_file": "./data/image_folder.py",
            "params": {"folder": "images"},
            "cache_size": None,
        },
        data_root=str(folder),
        imbalance_factor=None,
        augmentation={"color_jitter": [0.4, 0.4, 0.4, 0.1]},
        num_workers=0,
        **_minibatch(folder),
    )


RUNS = {"stage 1": _stage_1, "stage 2": _stage_2, "alternating": _alternate, "files": _files}
STEPS = {"stage 1": 16, "stage 2": 16, "alternating": 18, "files": 16}  # of all epochs


@pytest.fixture(scope="module", params=RUNS)
def whole(request, tmp_path_factory):
    """A kind of run, and what an uninterrupted one leaves."""
    folder = tmp_path_factory.mktemp("whole")
    metrics = train_and_test(RUNS[request.param](folder, folder / "run"))
    return request.param, metrics, _left_in(folder / "run")


def _left_in(folder):
    last, best = (torch.load(folder / name, weights_only=True) for name in (LAST, BEST))
    kept = {key: last[key] for key in ("networks", "losses", "optimizer", "scheduler")}
    return kept | {"best": best["state_dict_best"], "codes": last.get("database_codes")}


def _assert_same(one, other, where="checkpoint"):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            _assert_same(value, other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        for number, (value, another) in enumerate(zip(one, other, strict=True)):
            _assert_same(value, another, f"{where}[{number}]")
    else:
        assert one == other, where


def _stop_at(monkeypatch, steps):
    """Let a signal come during the steps of these numbers, counted over all attempts."""
    taken = 0
    real_step = engine.train.step

    def step(*arguments):
        nonlocal taken
        taken += 1
        if taken in steps:
            signal.raise_signal(signal.SIGTERM)
        return real_step(*arguments)

    monkeypatch.setattr("engine.train.step", step)


def _attempt(config):
    """Train until the end, or until a signal stops it; returns whether it ended, and metrics."""
    try:
        with SIGNALS.handled():
            return train_and_test(config, resume=can_resume(config))
    except Stopped:
        return None


# At once, within an epoch and at its end; at another's, at a validation and between two.
@pytest.mark.parametrize("stops", [[1, 2, 4], [6, 8, 11, 15]])
def test_a_stopped_run_ends_in_the_same_bits(whole, stops, tmp_path, monkeypatch):
    kind, metrics, expected = whole
    _stop_at(monkeypatch, stops)
    config = RUNS[kind](tmp_path, tmp_path / "run")
    attempts = [_attempt(config) for _ in range(len(stops) + 1)]
    assert attempts[:-1] == [None] * len(stops)
    assert attempts[-1]["map"] == metrics["map"]
    _assert_same(expected, _left_in(tmp_path / "run"))


def test_saving_after_every_step_changes_nothing(whole, tmp_path, monkeypatch):
    kind, metrics, expected = whole
    positions = []

    def note(path, values):
        if path.name == LAST:
            positions.append((values["epoch"], values["step"]))
        save_checkpoint(path, values)

    monkeypatch.setattr(training_state, "save_checkpoint", note)
    monkeypatch.setattr(save_points, "SAVE_SECONDS", 0.0)
    assert train_and_test(RUNS[kind](tmp_path, tmp_path / "run"))["map"] == metrics["map"]
    _assert_same(expected, _left_in(tmp_path / "run"))
    assert len({position for position in positions if position[1]}) == STEPS[kind]


def test_losses_and_seconds_count_what_was_done_before(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("logging.Logger.propagate", True, raising=False)
    config = _stage_1(tmp_path, tmp_path / "run")
    _stop_at(monkeypatch, [3])
    assert _attempt(config) is None
    stored = torch.load(tmp_path / "run" / LAST, weights_only=True)
    assert (stored["epoch"], stored["step"]) == (0, 3)
    assert stored["processes"][0]["tally"]["steps"] == 3
    assert 0 < stored["seconds"]["train"] < _attempt(config)["seconds"]["train"]


@pytest.mark.parametrize("written", [False, True])
def test_a_crash_neither_loses_nor_doubles_events(written, tmp_path, monkeypatch):
    """The run's folder is copied in epoch 4, the last checkpoint being of epoch 2."""
    taken, crashed = 0, tmp_path / "crashed"
    real_step = engine.train.step

    def step(run, *arguments):
        nonlocal taken
        taken += 1
        if taken == 14:
            if written:
                run.writer.flush()
            shutil.copytree(run.log_dir, crashed)
        return real_step(run, *arguments)

    monkeypatch.setattr("engine.train.step", step)
    train_and_test(_stage_1(tmp_path, tmp_path / "run"))
    (events,) = crashed.glob("events.*")
    events.rename(crashed / "events.out.tfevents.0")  # read before those of the same second
    train_and_test(_stage_1(tmp_path, crashed), resume=True)
    found = EventAccumulator(str(crashed)).Reload()
    assert [each.step for each in found.Scalars("loss/centre")] == [1, 2, 3, 4]
    assert [each.step for each in found.Scalars("validation/map")] == [2, 4]


def test_a_signal_while_testing_ends_at_once_and_the_run_can_be_tested(tmp_path, monkeypatch):
    def stop(*_, **__):
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the test went on")

    config = _stage_1(tmp_path, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("engine.experiment.test", stop)
        assert _attempt(config) is None
    monkeypatch.setattr("engine.train.step", stop)
    assert _attempt(config)["map"] > 0


def test_weights_that_a_step_spoilt_are_not_saved(tmp_path):
    run = open_run(_stage_1(tmp_path, tmp_path / "run"))
    training = build_training(run)
    save(run, training)
    before = (run.log_dir / LAST).read_bytes()
    training.step = 7
    with torch.no_grad():
        next(run.model.hash_head.parameters())[0] = torch.nan
    words = r"hash_head\..* is not finite after epoch 0 and 7 steps.*is of epoch 0, before it"
    with pytest.raises(UserError, match=words):
        save(run, training, best=True)
    assert (run.log_dir / LAST).read_bytes() == before
    assert not (run.log_dir / BEST).exists()


def test_a_checkpoint_of_other_processes_goes_on_with_what_they_shared(tmp_path):
    run = open_run(_stage_1(tmp_path, tmp_path / "run"))
    training = build_training(run)
    training.step = 2
    with run.timed("train"):
        save(run, training)
    values = torch.load(run.log_dir / LAST, weights_only=True)
    values["processes"] *= 2
    torch.save(values, run.log_dir / LAST)
    restore(run, training)
    assert (training.epoch, training.step, training.random_states) == (0, 2, None)


def test_a_step_that_more_processes_do_not_have_is_done(tmp_path):
    """Two images left over are a batch of one process, but join the last of two processes."""
    run = open_run(_stage_1(tmp_path, tmp_path / "run"))
    assert len(list(train_batches(run, 0, done=0))) == 4
    assert list(train_batches(run, 0, done=5)) == []


def test_a_checkpoint_from_before_positions_were_kept_is_taken_up_at_its_epoch(tmp_path):
    config = _stage_1(tmp_path, tmp_path / "run")
    whole = train_and_test(config)
    values = torch.load(tmp_path / "run" / LAST, weights_only=True)
    del values["step"], values["processes"]
    torch.save(values, tmp_path / "run" / LAST)
    assert train_and_test(config, resume=True)["map"] == whole["map"]


def test_a_checkpoint_from_before_optimizers_had_the_largest_first_goes_on(tmp_path, monkeypatch):
    """Both that optimizer's plain state, as it was saved then, and what is saved now."""
    expected = train_and_test(_stage_1(tmp_path, tmp_path / "whole"))
    config = _stage_1(tmp_path, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("engine.build._largest_first", lambda module: list(module.parameters()))
        patch.setattr(training_state, "_optimizer_state", lambda t: t.optimizer.state_dict())
        _stop_at(patch, [3])
        assert _attempt(config) is None
    assert train_and_test(config, resume=True)["map"] == expected["map"]
    _assert_same(_left_in(tmp_path / "whole"), _left_in(tmp_path / "run"))


def _damage(values, path, value):
    """Replace what is at a path within nested values; drop it if `value` is DROP."""
    *above, last = path
    for key in above:
        values = values[key]
    if value is DROP:
        del values[last]
    else:
        values[last] = value


DROP = object()
DAMAGES = {
    "no optimizer": (["optimizer"], DROP),
    "no losses": (["losses"], DROP),
    "text for a loss": (["losses", "centre"], "x"),
    "another moment": (["optimizer", "state", 0, "exp_avg"], torch.zeros(7)),
    "no moment": (["optimizer", "state", 0, "exp_avg"], DROP),
    "text for a state": (["optimizer", "state", 0], "x"),
    "no rate": (["optimizer", "param_groups", 0, "lr"], None),
    "no weight decay": (["optimizer", "param_groups", 0, "weight_decay"], DROP),
    "fewer steps than none": (["optimizer", "state", 0, "step"], torch.tensor(-3.0)),
    "a list of betas": (["optimizer", "param_groups", 0, "betas"], [0.9, []]),
    "no schedule": (["scheduler"], {}),
    "text for rates": (["scheduler", "_schedulers", 0, "base_lrs"], "x"),
    "no seconds": (["seconds"], {}),
    "a step before the first": (["step"], -1),
    "an epoch before the first": (["epoch"], -1),
    "text for a random state": (["processes", 0, "random", "torch"], "x"),
    "a short random state": (["processes", 0, "random", "torch"], torch.zeros(3).byte()),
    "other losses in the tally": (["processes", 0, "tally", "values"], torch.zeros(3, 5)),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was stopped within its first epoch, and its checkpoint."""
    folder = tmp_path_factory.mktemp("stopped")
    config = _stage_1(folder, folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        _stop_at(patch, [3])
        assert _attempt(config) is None
    return config, (folder / "run" / LAST).read_bytes()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_refused_in_a_line(damage, stopped):
    config, whole = stopped
    values = torch.load(io.BytesIO(whole), weights_only=True)
    _damage(values, *DAMAGES[damage])
    torch.save(values, Path(config.training_opt.log_dir) / LAST)
    with pytest.raises(UserError, match=rf"checkpoint .*{LAST}.*damaged"):
        train_and_test(config, resume=True)
