"""One process at a time has a folder, and none once it has died."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.folder_lock import LOCK, check_unlocked, locked

PROJECT = Path(__file__).resolve().parents[2]
HOLDER = """
import os, sys, time
from pathlib import Path
from utils.folder_lock import locked
with locked(Path(sys.argv[1])):
    if not os.fork():  # a child, as readers of images are
        time.sleep(60)
    print("held", flush=True)
    time.sleep(60)
"""


def _is_free_for_others(folder):
    script = (
        "import sys; from pathlib import Path; from utils.folder_lock import check_unlocked;"
        "check_unlocked(Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", script, folder], cwd=PROJECT, capture_output=True)
    return done.returncode == 0


def test_another_process_is_refused_until_the_block_ends(tmp_path):
    with locked(tmp_path):
        assert not _is_free_for_others(tmp_path)
    assert _is_free_for_others(tmp_path)


def test_a_killed_process_leaves_no_lock_even_if_its_children_live_on(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="is in use by another run"), locked(tmp_path):
            pass
        process.kill()
        process.wait()
        with locked(tmp_path):
            pass
        os.killpg(process.pid, signal.SIGKILL)


def test_a_folder_that_is_not_there_is_nobodys(tmp_path):
    check_unlocked(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_exception_lets_go_of_the_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    assert (tmp_path / LOCK).exists()
    assert _is_free_for_others(tmp_path)


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("logging.Logger.propagate", True, raising=False)
    monkeypatch.setattr("fcntl.lockf", refuse)
    with locked(tmp_path):
        assert "one run at a time" in caplog.text


def test_a_folder_that_cannot_be_written_is_not_said_to_be_in_use(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError), locked(tmp_path / "file"):
        pass
