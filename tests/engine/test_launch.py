"""When one process fails, all end at once and its error is the one that is told."""

import atexit
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
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


def _abort_at_exit(folder):
    (folder / os.environ["RANK"]).touch()
    atexit.register(os.abort)  # as threads of gloo's may, that DistributedDataParallel keeps


def test_a_process_whose_work_is_done_cannot_fail_any_more(tmp_path):
    run_processes(2, _abort_at_exit, tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == {"0", "1"}


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
        _wait_for(tmp_path, "ready_*")
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=stop, daemon=True).start()
    with pytest.raises(Stopped, match="SIGTERM"):
        run_processes(2, _save_when_stopped, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("saved_*")) == ["saved_0", "saved_1"]


LAUNCHER = """
import signal, sys
from pathlib import Path
from engine.launch import run_processes
from test_launch import _save_when_stopped
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for its background jobs
    run_processes(2, _save_when_stopped, Path(sys.argv[1]))
"""


def test_processes_save_and_end_when_the_one_that_started_them_is_killed(tmp_path):
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    command = [sys.executable, str(tmp_path / "launcher.py"), str(tmp_path)]
    paths = os.pathsep.join([str(Path.cwd()), str(Path(__file__).parent)])
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}) as launcher:
        _wait_for(tmp_path, "ready_*")
        launcher.kill()
    _wait_for(tmp_path, "saved_*")


def _wait_for(folder, pattern):
    deadline = time.monotonic() + 120
    while len(list(folder.glob(pattern))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)


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
