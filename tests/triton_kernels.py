"""Triton kernels are tested on a GPU, and on the CPU in an interpreter, in a process apart."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
needs_kernels = pytest.mark.skipif(
    DEVICE == "cpu" and not INTERPRETED, reason="no GPU; test_in_the_interpreter runs it"
)
needs_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="no GPU")


def run_in_the_interpreter(test_file):
    """Run the tests of a file that take the fixture `kernels`, on the CPU."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("no triton")
    if DEVICE == "cuda":
        pytest.skip("the GPU has run them")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", test_file, "-k", "kernels", "-p", "no:cacheprovider"],
        env=os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:]
    assert " passed" in run.stdout
