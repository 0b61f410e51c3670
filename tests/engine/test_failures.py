"""Errors that are nobody's bug are one line, which says what to do; others stay what they are."""

import errno
import os

import pytest
import torch
from small_config import make_config

from engine.experiment import train_and_test
from engine.failures import explained, told_in_a_line
from utils.errors import UserError

MEMORY = ["batch_size (8)", "evaluation_batch_size (256)", "image_size (8)", "precision=bf16"]
CASES = {
    "GPU memory": (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has"),
        ["out of GPU memory (for 20.00 GiB)", *MEMORY],
    ),
    "memory": (
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate me"
                     "mory: you tried to allocate 1 bytes."),
        ["out of memory", *MEMORY],
    ),
    "array": (MemoryError("Unable to allocate 9 GiB for an array"), ["out of memory", *MEMORY]),
    "full disk": (
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run/codes.npz"),
        ["run/codes.npz cannot be written", "No space left", "--resume"],
    ),
    "quota": (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), ["quota", "free space"]),
    "read-only": (OSError(errno.EROFS, os.strerror(errno.EROFS), "run"), ["run: Read-only"]),
    "vanished": (FileNotFoundError(errno.ENOENT, "No such file", "data"), ["data: No such file"]),
    "vanished, named in bytes": (
        FileNotFoundError(errno.ENOENT, "No such file", b"run/events"),
        ["run/events: No such file"],
    ),
    "no compiler": (
        RuntimeError("Failed to find C compiler. Please specify via CC environment variable"),
        ["C compiler", "install one (gcc)", "training_opt.accelerate=none"],
    ),
    "no C++ compiler": (
        RuntimeError("backend='inductor' raised: No working C++ compiler found in 'g++'"),
        ["C compiler", "training_opt.accelerate=none"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_error_is_told_in_a_line(case, tmp_path):
    error, words = CASES[case]
    with pytest.raises(UserError) as told, told_in_a_line(make_config(tmp_path)):
        raise error
    text = str(told.value)
    assert "\n" not in text
    assert "b'" not in text
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("a bug"), RuntimeError("shapes differ"), OSError(errno.EBADF, "Bad file")],
)
def test_other_errors_stay_as_they_are(error, tmp_path):
    assert explained(error, make_config(tmp_path)) is None
    with (
        pytest.raises(type(error), match=str(error.args[-1])),
        told_in_a_line(make_config(tmp_path)),
    ):
        raise error


@pytest.mark.parametrize("case", ["GPU memory", "no compiler"])
def test_the_check_of_a_first_batch_blames_neither_networks_nor_losses(case, tmp_path, monkeypatch):
    error, words = CASES[case]

    def fail(*_):
        raise error

    monkeypatch.setattr("engine.objective.Objective.forward", fail)
    with pytest.raises(UserError) as told:
        train_and_test(make_config(tmp_path / "run"))
    assert all(word in str(told.value) for word in words)
    assert not (tmp_path / "run").exists()


def test_what_is_set_already_is_not_advised(tmp_path):
    error, _ = CASES["no compiler"]
    told = explained(error, make_config(tmp_path, accelerate="none"))
    assert "accelerate" not in str(told)
    told = explained(CASES["GPU memory"][0], make_config(tmp_path, precision="bf16"))
    assert "precision" not in str(told)
