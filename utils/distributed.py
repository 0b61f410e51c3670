"""Several processes that train together: who one is, and what all of them know.

Everything here also works in a lone process, where it does nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from utils.errors import UserError

TIMEOUT = timedelta(minutes=60)  # rank 0 may decode a whole data set before the others go on
_cpu_group: dist.ProcessGroup | None = None  # beside NCCL's, whose answers wait for the GPU


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    """This process's number on its machine, which is its GPU's; torchrun's LOCAL_RANK."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """How many processes share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def started_world_size() -> int:
    """How many processes this one was started among, by the environment; torchrun's WORLD_SIZE."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the process that writes files and speaks to the user."""
    return rank() == 0


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the processes that were started together; nothing is done for a lone one."""
    global _cpu_group
    if started_world_size() == 1:
        yield
        return
    absent = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if absent:
        raise UserError(
            f"WORLD_SIZE is {started_world_size()}, but {', '.join(absent)} is not set; "
            "start the processes with torchrun, or unset WORLD_SIZE"
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", timeout=TIMEOUT, device_id=device)
        _cpu_group = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=TIMEOUT))
    else:
        dist.init_process_group("gloo", timeout=TIMEOUT)
    yield
    # After an error the others may be gone: the group then ends with the process.
    dist.barrier()
    dist.destroy_process_group()
    _cpu_group = None


@contextmanager
def main_first() -> Iterator[None]:
    """Let rank 0 do a block before the others, which then find what it left on the disk."""
    if not is_main():
        wait()
    yield
    if is_main():
        wait()


def wait() -> None:
    """Wait until every process is here."""
    if dist.is_initialized():
        dist.barrier()


def share(total: int) -> slice:
    """This process's part of `total` items, in the order of ranks; parts differ by one at most."""
    return _shares(total)[rank()]


def gather(part: Tensor, total: int) -> Tensor:
    """All `total` rows, from each process's `share` of them, on every process."""
    if world_size() == 1:
        return part
    sizes = [each.stop - each.start for each in _shares(total)]
    padded = part.new_zeros((max(sizes), *part.shape[1:]))
    padded[: len(part)] = part
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([each[:size] for each, size in zip(parts, sizes, strict=True)])


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of every process's tensor of one shape, on every process."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def least_over_processes(value: Tensor) -> Tensor:
    """The least of every process's tensor of one shape, element by element, on every process."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value, op=dist.ReduceOp.MIN)
    return value


def largest(values: list[int]) -> list[int]:
    """The largest of every process's numbers, place by place, on every process.

    Between the CPUs: what the GPUs are at is not waited for.
    """
    if world_size() == 1:
        return values
    found = torch.tensor(values)
    dist.all_reduce(found, op=dist.ReduceOp.MAX, group=_cpu_group)
    return found.tolist()


def gather_objects(value: Any) -> list[Any]:
    """Every process's plain values and CPU tensors, in the order of ranks, on every process."""
    found = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(found, value, group=_cpu_group)
    return found


def send_from_main(value: Tensor) -> Tensor:
    """Rank 0's values on every process, in place."""
    if world_size() > 1:
        dist.broadcast(value, src=0)
    return value


@torch.no_grad()
def average_statistics(module: nn.Module) -> None:
    """Replace the batch statistics that training changes by their mean over processes."""
    if world_size() == 1:
        return
    for each in module.modules():
        if each.training and isinstance(each, nn.modules.batchnorm._BatchNorm):
            for statistics in (each.running_mean, each.running_var):
                if statistics is not None:
                    dist.all_reduce(statistics)
                    statistics /= world_size()


def share_of_batches(batches: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """This process's part of each batch; all parts of a batch are of one size.

    A batch that cannot be divided is filled up with its own first images, as torch's
    DistributedSampler does, so that the mean over processes is the mean over images.
    """
    count = world_size()
    return [np.resize(batch, -(-len(batch) // count) * count)[rank() :: count] for batch in batches]


def _shares(total: int) -> list[slice]:
    bounds = [total * each // world_size() for each in range(world_size() + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]
