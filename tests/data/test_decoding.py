import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data.decoding
from data.decoding import LEAST_FILES, decode_files
from utils.errors import UserError


@pytest.fixture
def paths(write_image, monkeypatch):
    """Files of several sizes, enough for three workers that write several blocks each."""
    monkeypatch.setattr(data.decoding, "LEAST_FILES", 20)
    monkeypatch.setattr(data.decoding, "_BLOCK_FILES", 7)
    sizes = [(8, 8), (8, 8), (12, 9), (5, 20)]
    return [str(write_image(f"{i:03d}.png", sizes[i % 4])) for i in range(80)]


@pytest.fixture
def started(monkeypatch):
    workers = []

    class Counted(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            workers.append(self)

    monkeypatch.setattr(subprocess, "Popen", Counted)
    return workers


def decoded(paths, processes):
    array = np.zeros((len(paths), 8, 8, 3), dtype=np.uint8)
    decode_files(array, paths, processes)
    return array


@pytest.mark.parametrize("processes", [2, 3, 16])
def test_processes_decode_what_one_decodes(paths, started, processes):
    serial = decoded(paths, 1)
    assert started == []
    assert np.array_equal(decoded(paths, processes), serial)
    assert len(started) == min(processes, 4)
    assert all(worker.returncode is not None for worker in started)
    assert np.array_equal(serial[1], np.asarray(Image.open(paths[1])))


def test_few_files_start_no_process(paths, started):
    decoded(paths[:39], 16)
    assert started == [] and LEAST_FILES > 100


@pytest.mark.parametrize("place", [0, 33, 79])
def test_a_broken_file_is_named_and_ends_the_workers(paths, started, place):
    Path(paths[place]).write_bytes(b"x")
    with pytest.raises(UserError, match=f"image {paths[place]} cannot be read") as error:
        decoded(paths, 3)
    assert "\n" not in str(error.value)
    assert all(worker.returncode is not None for worker in started)


def test_what_a_worker_leaves_undone_is_done_here(paths, monkeypatch, tmp_path):
    serial = decoded(paths, 1)
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    assert np.array_equal(decoded(paths, 3), serial)


def test_workers_need_neither_the_callers_folder_nor_its_main_module(paths, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; import numpy as np; import data.decoding\n"
        "data.decoding.LEAST_FILES = 20\n"
        "array = np.zeros((80, 8, 8, 3), dtype=np.uint8)\n"
        "data.decoding._decode = None  # so that nothing is decoded here\n"
        "data.decoding.decode_files(array, sys.argv[1:], 2)\n"
        "print(array.sum())\n"
    )
    root = str(Path(__file__).parents[2])
    (tmp_path / "data").mkdir()  # a dataset's folder of the package's name
    found = subprocess.run(
        [sys.executable, script, *[Path(path).name for path in paths]],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True,
    )  # fmt: skip
    assert found.stdout.split() == [str(decoded(paths, 1).sum())], found.stderr
