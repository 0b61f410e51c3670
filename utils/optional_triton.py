"""Triton, where it is installed, and what the kernels of several layers share.

It comes with torch's CUDA builds only. Without it the kernels can be imported but never run.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton, tl = cast(Any, None), cast(Any, SimpleNamespace(constexpr=None))

DEVICE = "cuda"
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def runs_kernels(x: Tensor) -> bool:
    """Whether kernels can be launched on x: on a GPU, with Triton, outside of torch.compile."""
    return triton is not None and x.device.type == DEVICE and not torch.compiler.is_compiling()


def jit_for_all(*sizes: str) -> Callable[[Any], Any]:
    """A decorator for a kernel that is compiled once for all values of the arguments `sizes`."""

    def decorate(function: Any) -> Any:
        return triton.jit(function, do_not_specialize=sizes) if triton else function

    return decorate


def channel_groups(channels: int) -> dict[str, int]:
    """Channels as `groups` times `vector`, of which a kernel knows the latter when compiled.

    So the compiler sees that pixels start at multiples of `vector` and reads that many values at
    once.
    """
    vector = 8 if channels % 8 == 0 else 1
    return {"groups": channels // vector, "vector": vector}
