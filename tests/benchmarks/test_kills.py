"""What the benchmark of kills calls lost or different; and that killed writers lose nothing."""

import json
import os
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import kills
from engine.checkpoint import BEST, LAST, save_checkpoint

WEIGHTS = {"head": {"weight": torch.arange(6.0).view(2, 3)}}
ABOUT = {"epoch": 2, "config": {}}


def _leave_run(folder, score=0.5, weights=WEIGHTS):
    """What a finished run leaves, as far as it is compared."""
    folder.mkdir(exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps({"map": score}))
    save_checkpoint(folder / LAST, {**ABOUT, "step": 0, "networks": weights})
    save_checkpoint(folder / BEST, {**ABOUT, "state_dict_best": weights})
    return kills._results(folder)


def _judge(folder, expected, status=0):
    whole, tried = kills.Whole(expected, 0.5, 2.0), kills.Tried()
    failures = kills._wrong_end(SimpleNamespace(exitcode=status), folder, whole, tried)
    assert tried.finished == (not failures)
    return " ".join(failures)


def test_an_equal_end_is_no_failure_and_a_different_one_is(tmp_path):
    expected = _leave_run(tmp_path / "run")
    assert _judge(tmp_path / "run", expected) == ""
    (tmp_path / "run.txt").write_text("...\nerror: no disk\n")
    assert "exit status 2: error: no disk" in _judge(tmp_path / "run", expected, status=2)
    _leave_run(tmp_path / "run", score=0.5 + 1e-16 + 1e-12)
    assert "map differ" in _judge(tmp_path / "run", expected)
    moved = {"head": {"weight": WEIGHTS["head"]["weight"].nextafter(torch.tensor(9.0))}}
    _leave_run(tmp_path / "run", weights=moved)
    assert "last, best differ" in _judge(tmp_path / "run", expected)


def test_a_temporary_that_stays_is_a_failure(tmp_path):
    expected = _leave_run(tmp_path / "run")
    (tmp_path / "run" / ".tmp-1.pth").touch()
    assert ".tmp-1.pth" in _judge(tmp_path / "run", expected)


@pytest.mark.parametrize("name", [LAST, BEST])
def test_half_a_checkpoint_is_lost(tmp_path, name):
    _leave_run(tmp_path)
    assert kills._position(tmp_path, None) == ((2, 0), None)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-50])
    assert name in kills._position(tmp_path, None)[1]


def test_a_checkpoint_that_is_gone_or_goes_back_is_lost(tmp_path):
    _leave_run(tmp_path)
    assert kills._position(tmp_path, (2, 0))[1] is None
    assert "was of epoch and step (2, 1), then of (2, 0)" in kills._position(tmp_path, (2, 1))[1]
    (tmp_path / LAST).unlink()
    assert "then of None" in kills._position(tmp_path, (2, 0))[1]


def test_a_writer_killed_at_any_moment_leaves_the_old_checkpoint_or_the_new(tmp_path):
    rng = np.random.default_rng(0)
    position = None
    for number in range(25):
        writer = os.fork()
        if not writer:
            for step in range(1_000_000):
                values = {**ABOUT, "epoch": number, "step": step, "networks": WEIGHTS}
                save_checkpoint(tmp_path / LAST, values)
        time.sleep(rng.uniform(0, 0.04))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        position, wrong = kills._position(tmp_path, position)
        assert wrong is None
    assert position is not None
