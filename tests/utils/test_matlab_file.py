"""Reading a MATLAB file neither ends the process nor changes what is in it."""

import numpy as np
import pytest
from scipy.io import savemat

from utils.matlab_file import load_matlab


@pytest.fixture
def file(tmp_path):
    savemat(tmp_path / "x.mat", {"one": np.eye(3), "two": np.arange(4)})
    return tmp_path / "x.mat"


def test_variables_are_those_saved_or_those_named(file):
    both = load_matlab(file)
    np.testing.assert_array_equal(both["one"], np.eye(3))
    np.testing.assert_array_equal(both["two"], [np.arange(4)])
    assert "one" not in load_matlab(file, ["two"])


def test_a_reading_that_ends_the_process_is_an_error(file, monkeypatch):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    (file.parent / "sitecustomize.py").write_text(f"if True: {code}")
    monkeypatch.setenv("PYTHONPATH", str(file.parent))
    with pytest.raises(OSError, match="the reading ends with SIGSEGV"):
        load_matlab(file)
