"""Triton, where it is installed, and what the kernels of several layers share.

It comes with torch's CUDA builds only. Without it the kernels can be imported but never run.
"""

import logging
import os
from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton, tl = cast(Any, None), cast(Any, SimpleNamespace(constexpr=int))

logger = logging.getLogger("long_tail_hashing")

DEVICE = "cuda"
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def runs_kernels(x: Tensor) -> bool:
    """Whether kernels can be launched on x: on a GPU, with Triton, outside of torch.compile.

    And if one is compiled and launched: Triton needs a C compiler, and a GPU that it knows.
    """
    if triton is None or x.device.type != DEVICE or torch.compiler.is_compiling():
        return False
    return _launches(x.device)


def jit_for_all(*sizes: str) -> Callable[[Any], Any]:
    """A decorator for a kernel that is compiled once for all values of the arguments `sizes`."""

    def decorate(function: Any) -> Any:
        return triton.jit(function, do_not_specialize=sizes) if triton else function

    return decorate


@jit_for_all()
def begin(early: tl.constexpr):  # type: ignore[no-untyped-def]
    """First in a kernel of `early_launch`: let the next one start, and wait for the one before.

    Nothing is read or written before the wait, which is for all of that kernel and so, as each
    waits for its own, for all before it.
    """
    if early:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


@lru_cache(maxsize=16)
def early_launch(device: torch.device) -> dict[str, bool]:
    """Arguments of a kernel's launch that let it start while the one before it ends, if it can.

    Programmatic dependent launch, of NVIDIA GPUs from compute capability 9.0 on.
    """
    known = triton is not None and hasattr(getattr(tl.extra, "cuda", None), "gdc_wait")
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not known or interpreted or device.type != "cuda" or torch.version.cuda is None:
        return {"early": False}
    if torch.cuda.get_device_capability(device) < (9, 0):
        return {"early": False}
    return {"early": True, "launch_pdl": True}


@jit_for_all()
def _touch(place):  # type: ignore[no-untyped-def]
    tl.store(place, 1)


@lru_cache(maxsize=16)
def _launches(device: torch.device) -> bool:
    """Whether a kernel can be compiled for a device and launched; warns once if not."""
    place = torch.zeros(1, dtype=torch.int32, device=device)
    try:
        with torch.cuda.device_of(place):
            _touch[(1,)](place)
    except Exception as error:  # of many kinds, by the step that fails
        reason = " ".join(str(error).split())[:200]
        logger.warning("%s runs without kernels of our own, slower: %s", device, reason)
        return False
    return True


def channel_groups(channels: int) -> dict[str, int]:
    """Channels as `groups` times `vector`, of which a kernel knows the latter when compiled.

    So the compiler sees that pixels start at multiples of `vector` and reads that many values at
    once.
    """
    vector = 8 if channels % 8 == 0 else 1
    return {"groups": channels // vector, "vector": vector}
