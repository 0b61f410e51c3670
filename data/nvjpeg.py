"""Many JPEG files at once by a GPU's JPEG engines: nvJPEG on a stream of our choice.

torchvision's decoder is the same library, but on streams of the lowest priority. The engines leave
the multiprocessors alone, yet every image ends with a small kernel, and beside training each of
those would wait for the training's (docs/performance.md has the times).
"""

import ctypes
from ctypes import byref, c_size_t, c_void_p
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from data.jpeg_files import JpegFiles, PackedImages, empty_line

# Of nvjpeg.h
_BACKEND_HARDWARE = 3
_HW_DECODE_NO_PIPELINE = 1  # without it kernels run on streams of the library's own
_OUTPUT_RGB = 3  # planes
# nvjpegImage_t: where planes go, and the bytes of their rows.
_IMAGE = np.dtype([("channel", np.uintp, 4), ("pitch", np.uintp, 4)])
# What nvjpegGetImageInfo tells of a file: components, subsampling, 4 widths, 4 heights.
_INFO = 10
_INFO_PLACES = (0, 1, 2, 6)


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

    def decode(self, files: JpegFiles) -> PackedImages:
        """Return the files' pixels on the device, complete on return.

        The current stream decodes; give it a high priority beside training.

        Raises:
            RuntimeError: the engines do not decode one of them, or find another size in its header.
        """
        places = files.content.data_ptr() + files.starts
        with self.lock, torch.cuda.device(self.device):
            self._check_sizes(files, places)
            images = PackedImages(empty_line(files.sizes, self.device), files.sizes)
            try:
                self._decode(files, places, images)
            except RuntimeError:
                self.batch = 0  # the state is not to be trusted
                raise
        return images

    def _decode(self, files: JpegFiles, places: np.ndarray, images: PackedImages) -> None:
        count, stream = len(places), torch.cuda.current_stream()
        if count != self.batch:
            self._call(
                "nvjpegDecodeBatchedInitialize", self.handle, self.state, count, 1, _OUTPUT_RGB
            )
            self.batch = count
        targets = np.zeros(count, dtype=_IMAGE)
        first = images.line.data_ptr() + images.starts
        targets["channel"][:, :3] = first[:, None] + np.arange(3) * images.planes[:, None]
        targets["pitch"][:, :3] = images.sizes[:, 1:]
        places, lengths = places.astype(np.uintp), files.lengths.astype(np.uintp)
        self._call(
            "nvjpegDecodeBatched",
            self.handle,
            self.state,
            *(c_void_p(array.ctypes.data) for array in (places, lengths, targets)),
            c_void_p(stream.cuda_stream),
        )
        stream.synchronize()  # before the state is used again

    def _check_sizes(self, files: JpegFiles, places: np.ndarray) -> None:
        """Of a size that nvJPEG reads otherwise it would write beyond the memory for it."""
        found = np.zeros((len(places), _INFO), dtype=np.intc)
        read, handle = self.headers.nvjpegGetImageInfo, self.handle.value
        targets = found.ctypes.data + found.itemsize * np.arange(found.size).reshape(found.shape)
        rows = zip(
            places.tolist(), files.lengths.tolist(), targets[:, _INFO_PLACES].tolist(), strict=True
        )
        for place, length, addresses in rows:
            status = read(handle, place, length, *addresses)
            if status:
                raise RuntimeError(f"nvjpegGetImageInfo failed with status {status}")
        if not np.array_equal(found[:, [6, 2]], files.sizes):
            raise RuntimeError("nvJPEG finds other sizes in headers than were given")

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.library, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} failed with status {status}")


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
        library, headers = ctypes.CDLL(name), ctypes.PyDLL(name)
    except OSError as error:
        raise RuntimeError(f"nvJPEG is not there ({error})") from error
    headers.nvjpegGetImageInfo.argtypes = [c_void_p, c_void_p, c_size_t, *[c_void_p] * 4]
    return library, headers
