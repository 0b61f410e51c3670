"""Many JPEG files at once by a GPU's JPEG engines: nvJPEG on a stream of our choice.

torchvision's decoder is the same library, but on streams of the lowest priority. The engines leave
the multiprocessors alone, yet every image ends with a small kernel, and beside training each of
those would wait for the training's (docs/performance.md has the times).
"""

import ctypes
from collections.abc import Sequence
from ctypes import byref, c_int, c_size_t, c_void_p
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

# Of nvjpeg.h
_BACKEND_HARDWARE = 3
_HW_DECODE_NO_PIPELINE = 1  # without it kernels run on streams of the library's own
_OUTPUT_RGB = 3  # planes
_MAX_COMPONENTS = 4


class _Image(ctypes.Structure):
    """nvjpegImage_t: where planes go, and the bytes of their rows."""

    _fields_ = (("channel", c_void_p * _MAX_COMPONENTS), ("pitch", c_size_t * _MAX_COMPONENTS))


class NvJpeg:
    """The JPEG engines of one device.

    Raises:
        RuntimeError: there is no nvJPEG, or the device has no engines.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.library, self.headers = _library()
        self.handle, self.state = c_void_p(), c_void_p()
        self.batch = 0
        self.lock = Lock()
        with torch.cuda.device(device):
            torch.cuda.current_stream().synchronize()  # makes the device's context
            self._call(
                "nvjpegCreateEx",
                *(_BACKEND_HARDWARE, None, None, _HW_DECODE_NO_PIPELINE, byref(self.handle)),
            )
            self._call("nvjpegJpegStateCreate", self.handle, byref(self.state))

    def decode(self, files: Sequence[Tensor]) -> list[Tensor]:
        """Return each file's (3, H, W) uint8 pixels on the device, complete on return.

        The current stream decodes; give it a high priority beside training.

        files: each (bytes,) uint8 on the CPU.

        Raises:
            RuntimeError: the engines do not decode one of them.
        """
        with self.lock, torch.cuda.device(self.device):
            sizes = [self._size(file) for file in files]
            planes = [height * width for height, width in sizes]
            pixels = torch.empty(3 * sum(planes), dtype=torch.uint8, device=self.device)
            try:
                self._decode(files, sizes, pixels.data_ptr())
            except RuntimeError:
                self.batch = 0  # the state is not to be trusted
                raise
        parts = pixels.split([3 * plane for plane in planes])
        return [part.view(3, *size) for part, size in zip(parts, sizes, strict=True)]

    def _decode(self, files: Sequence[Tensor], sizes: list[tuple[int, int]], place: int) -> None:
        """Write the planes of one image after another, from an address of the device on."""
        count, stream = len(files), torch.cuda.current_stream()
        if count != self.batch:
            self._call(
                "nvjpegDecodeBatchedInitialize", self.handle, self.state, count, 1, _OUTPUT_RGB
            )
            self.batch = count
        targets = (_Image * count)()
        for target, (height, width) in zip(targets, sizes, strict=True):
            for plane in range(3):
                target.channel[plane], target.pitch[plane] = place, width
                place += height * width
        self._call(
            "nvjpegDecodeBatched",
            self.handle,
            self.state,
            (c_void_p * count)(*(file.data_ptr() for file in files)),
            (c_size_t * count)(*(len(file) for file in files)),
            targets,
            c_void_p(stream.cuda_stream),
        )
        stream.synchronize()  # before the state is used again

    def _size(self, file: Tensor) -> tuple[int, int]:
        """Height and width in pixels, from a file's header."""
        count, subsampling = c_int(), c_int()
        widths, heights = (c_int * _MAX_COMPONENTS)(), (c_int * _MAX_COMPONENTS)()
        place, length = c_void_p(file.data_ptr()), c_size_t(len(file))
        found = byref(count), byref(subsampling), widths, heights
        self._check(self.headers.nvjpegGetImageInfo, self.handle, place, length, *found)
        return heights[0], widths[0]

    def _call(self, name: str, *arguments: Any) -> None:
        self._check(getattr(self.library, name), *arguments)

    @staticmethod
    def _check(function: Any, *arguments: Any) -> None:
        status = function(*arguments)
        if status:
            raise RuntimeError(f"{function.__name__} failed with status {status}")


@lru_cache(maxsize=16)
def jpeg_engines(device: torch.device) -> NvJpeg | None:
    """Return the device's JPEG engines, None where there are none."""
    if device.type != "cuda":
        return None
    try:
        return NvJpeg(device)
    except RuntimeError:
        return None


@lru_cache(maxsize=1)
def _library() -> tuple[ctypes.CDLL, ctypes.PyDLL]:
    """nvJPEG as torchvision brings it, else as the system has it; also for calls that are short.

    The latter keep the interpreter's lock: with two threads at work beside it, each of a batch's
    calls might otherwise wait for a turn of 5 ms.
    """
    import torchvision

    beside = Path(torchvision.__file__).parent.parent / "torchvision.libs"
    found = sorted(beside.glob("libnvjpeg*.so*"))
    name = str(found[0]) if found else "libnvjpeg.so"
    try:
        return ctypes.CDLL(name), ctypes.PyDLL(name)
    except OSError as error:
        raise RuntimeError(f"nvJPEG is not there ({error})") from error
