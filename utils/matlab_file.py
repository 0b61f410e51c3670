"""MATLAB's .mat files, whose reading by SciPy may end the process when they are broken."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def load_matlab(path: Path, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the variables of a file, or those of `names`.

    The reading is tried in a process of its own first (about a second).

    Raises:
        NotImplementedError: the file is of MATLAB 7.3.
        OSError: the reading ends with a signal.
        Exception: whatever SciPy raises on a broken file: its own errors, zlib's and others.
    """
    from scipy.io import loadmat  # slow to import, and few need it

    try_reading(path)
    return loadmat(path, variable_names=names)


def try_reading(path: Path) -> None:
    """Raise an OSError if reading the file ends a process; what it raises does not count."""
    code = "import sys, scipy.io; scipy.io.loadmat(sys.argv[1])"
    command = [sys.executable, "-c", code, os.path.abspath(path)]  # noqa: PTH100
    status = subprocess.run(command, capture_output=True, check=False).returncode
    if status < 0:
        raise OSError(f"the reading ends with {signal.Signals(-status).name}")
