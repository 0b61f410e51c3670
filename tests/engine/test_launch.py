"""When one process fails, all end at once and its error is the one that is told."""

import os
import signal
import time
from threading import Thread

import pytest
import torch
from small_config import make_config

from engine.launch import processes_to_start, run_processes
from utils import distributed
from utils.errors import UserError
from utils.stop_signals import SIGNALS, Stopped


def _fail(how):
    with distributed.joined(torch.device("cpu")):
        if distributed.rank() == 1:
            if how == "user":
                raise UserError("image x.jpg cannot be read")
            if how == "bug":
                raise ZeroDivisionError("a bug")
            if how == "long":
                raise RuntimeError("x" * 100_000 + "the end")
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "kill one of the busy":
            time.sleep(3600)
        distributed.wait()  # rank 0 would wait here for an hour


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("user", UserError, "^image x.jpg cannot be read$"),
        ("bug", RuntimeError, r"process 1 failed:\nTraceback(.|\n)*ZeroDivisionError: a bug"),
        ("long", RuntimeError, "xxxthe end$"),
        ("kill", RuntimeError, r"process 1 of the run ended .* \(killed by SIGKILL\)"),
        ("kill one of the busy", RuntimeError, r"process 1 .* \(killed by SIGKILL\)"),
    ],
)
def test_the_first_failure_stops_the_others_and_is_raised(how, kind, words):
    started = time.monotonic()
    with pytest.raises(kind, match=words):
        run_processes(2, _fail, how)
    assert time.monotonic() - started < 60  # most of it is importing torch twice


def _save_when_stopped(folder):
    with SIGNALS.deferred():
        (folder / f"ready_{os.environ['RANK']}").touch()
        while not SIGNALS.number:
            time.sleep(0.01)
        time.sleep(0.2 * (os.environ["RANK"] == "0"))  # which is not cut off by the other's end
        (folder / f"saved_{os.environ['RANK']}").touch()
        raise Stopped(SIGNALS.number)


def test_a_signal_is_passed_on_and_all_may_save(tmp_path):
    def stop():
        while len(list(tmp_path.glob("ready_*"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=stop, daemon=True).start()
    with pytest.raises(Stopped, match="SIGTERM"):
        run_processes(2, _save_when_stopped, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("saved_*")) == ["saved_0", "saved_1"]


def test_each_gpu_gets_a_process_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert processes_to_start(make_config(tmp_path, device="auto")) == 3
    assert processes_to_start(make_config(tmp_path, device="cpu")) == 1
    shallow = make_config(tmp_path, device="auto")
    shallow.engine = "shallow"
    assert processes_to_start(shallow) == 1
    monkeypatch.setenv("RANK", "0")  # torchrun's only one
    assert processes_to_start(make_config(tmp_path, device="auto")) == 1
