"""How many processor cores this process may use."""

import os
from pathlib import Path

import torch

from utils.distributed import local_world_size

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # control group 2: "quota period" in microseconds


def available_cores(quota: Path = _QUOTA) -> int:
    """Cores of this process: those it may run on, a container's quota, its share among processes.

    torch alone sees neither a quota nor its siblings, and threads beyond the cores slow small
    operations many times, since they spin while they wait.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    try:
        limit, period = quota.read_text().split()
        cores = min(cores, max(1, int(limit) // int(period)))
    except (OSError, ValueError):  # no such file, or no limit ("max")
        pass
    return max(1, cores // local_world_size())


def use_available_cores() -> None:
    """Give torch as many threads as there are cores, unless OMP_NUM_THREADS says how many."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
