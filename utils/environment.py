"""What a run ran on, for its records."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from utils.distributed import world_size

COMMIT_VARIABLE = "LTH_COMMIT"  # names the commit where the code was copied without its history
UNRECORDED = ("--", ".", ":!logs/records")  # a record's own row does not change the code


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, hardware and commit."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": gpu_name(device),
        "processes": world_size(),
        "cpu": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "commit": commit(),
    }


def gpu_name(device: torch.device) -> str:
    """The GPU's name, with how many there are where processes share the work; '' on the CPU."""
    if device.type != "cuda":
        return ""
    name = torch.cuda.get_device_name(device)
    return name if world_size() == 1 else f"{world_size()} x {name}"


def peak_gpu_memory(device: torch.device) -> float | None:
    """The most GPU memory that this process has held, in GiB; None on the CPU."""
    return torch.cuda.max_memory_reserved(device) / 2**30 if device.type == "cuda" else None


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
