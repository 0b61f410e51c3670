import errno
import json
import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from utils.atomic_file import atomic_path, remove_strays, write_json, write_text

PROJECT = Path(__file__).resolve().parents[2]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_text_and_json_come_back_as_written(tmp_path):
    write_text(tmp_path / "a.txt", "Größe\n")
    assert (tmp_path / "a.txt").read_bytes() == "Größe\n".encode()
    value = {"name": "Größe", "rows": [1, 2.5, None]}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value


def test_missing_folders_are_made(tmp_path):
    write_text(tmp_path / "new" / "run" / "log.txt", "x")
    assert (tmp_path / "new" / "run" / "log.txt").read_text() == "x"


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["metrics.json"]


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"map": 0.5})
    with pytest.raises(TypeError):
        write_json(path, {"map": object()})
    assert json.loads(path.read_text()) == {"map": 0.5}
    assert names(tmp_path) == ["metrics.json"]


def test_the_old_file_is_whole_until_the_block_ends(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_the_temporary_file_keeps_the_suffix_that_writers_go_by(tmp_path):
    with atomic_path(tmp_path / "codes.npy") as temporary:
        np.save(temporary, np.arange(3))  # adds .npy to a name without it
    assert np.load(tmp_path / "codes.npy").tolist() == [0, 1, 2]
    assert names(tmp_path) == ["codes.npy"]


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_a_fresh_file_has_the_permissions_that_open_would_give(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "atomic.txt", "x")
        (tmp_path / "plain.txt").write_text("x")
    finally:
        os.umask(before)
    atomic, plain = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names(tmp_path))
    assert atomic == plain == 0o666 & ~umask


def test_the_umask_which_all_threads_share_is_left_alone(tmp_path, monkeypatch):
    def refuse(mask):
        raise AssertionError("a file another thread creates now would be open to all")

    monkeypatch.setattr(os, "umask", refuse)
    write_text(tmp_path / "a.txt", "x")


def test_a_process_killed_in_the_middle_of_a_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.pth"
    path.write_text("old")
    script = (
        "import sys, time\n"
        "from utils.atomic_file import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary, temporary.open('w') as stream:\n"
        "    stream.write('half'); stream.flush()\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    write_text(path, "new")  # what the killed one left behind is not in the way
    assert path.read_text() == "new"


def test_of_two_writers_at_once_the_last_to_finish_wins(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_path(path) as outer:
        outer.write_text("outer")
        with atomic_path(path) as inner:
            assert inner != outer
            inner.write_text("inner")
        assert path.read_text() == "inner"
    assert path.read_text() == "outer"
    assert names(tmp_path) == ["a.txt"]


def test_a_reader_never_sees_a_mixture_of_concurrent_writers(tmp_path):
    path = tmp_path / "a.txt"
    contents = {letter * 200_000 for letter in "abcd"}
    write_text(path, "a" * 200_000)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(write_text, path, text) for text in sorted(contents) * 5]
        while not all(job.done() for job in jobs):
            assert path.read_text() in contents
    for job in jobs:
        job.result()
    assert path.read_text() in contents
    assert names(tmp_path) == ["a.txt"]


def test_a_full_disk_is_told_with_the_files_name_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left") as told, atomic_path(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert told.value.filename == str(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "model.pth").write_text("kept")
    with atomic_path(tmp_path / "model.pth") as temporary:
        temporary.rename(tmp_path / "aside")
        (tmp_path / "aside").rename(temporary.with_suffix(".killed"))
        temporary.write_text("new")
    assert len(names(tmp_path)) == 2
    remove_strays(tmp_path)
    assert names(tmp_path) == ["model.pth"]
