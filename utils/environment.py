"""What a run ran on, for its records."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

COMMIT_VARIABLE = "LTH_COMMIT"  # names the commit where the code was copied without its history
UNRECORDED = ("--", ".", ":!logs/records")  # a record's own row does not change the code


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, hardware and commit."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        "cpu": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "commit": commit(),
    }


def commit() -> str:
    """The project's commit, with a + when files differ from it; 'unknown' without git."""
    folder = Path(__file__).resolve().parent.parent
    try:
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(folder, "status", "--porcelain", "-uno", *UNRECORDED) else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get(COMMIT_VARIABLE, "unknown")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
