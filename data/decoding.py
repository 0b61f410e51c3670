"""Decode image files into an array, on all cores.

Much of Pillow's work on a small image holds Python's lock, so that threads would decode no more
than one process does. The workers are fresh interpreters that import nothing but this: a fork
would copy the caller's threads and its GPU context, and `multiprocessing` would import the
caller's main module anew.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from data.image_file import read_image
from utils.errors import UserError

Worker = subprocess.Popen[bytes]

LEAST_FILES = 500  # a worker, whose start takes 0.2 s
_BLOCK_FILES, _BLOCK_BYTES = 256, 1 << 20  # what a worker decodes before it writes
_DONE, _FAILED = b"\0", b"\1"


def decode_files(
    array: np.ndarray, paths: Sequence[str], processes: int, *, bar: bool = True
) -> None:
    """Decode files into the rows of an array.

    array: (n, S, S, 3) uint8, C-contiguous. An image of another size is resized by its shorter
        side, bicubic, and centre-cropped.
    processes: how many may work at once; fewer do where the files are few.
    bar: show a progress bar on a terminal.

    Raises:
        UserError: a file cannot be decoded; names it.
    """
    block = max(1, min(_BLOCK_FILES, _BLOCK_BYTES // max(1, array[:1].nbytes)))
    blocks = [slice(start, start + block) for start in range(0, len(paths), block)]
    processes = min(processes, len(paths) // LEAST_FILES)
    counts = _in_processes if processes > 1 else _in_this_process
    hidden = None if bar else True  # None: unless on a terminal
    with tqdm(desc="decoding images", total=len(paths), disable=hidden) as progress:
        for count in counts(array, paths, blocks, processes):
            progress.update(count)


def _in_this_process(
    array: np.ndarray, paths: Sequence[str], blocks: list[slice], _: int
) -> Iterator[int]:
    for block in blocks:
        _decode(array[block], paths[block])
        yield len(paths[block])


def _in_processes(
    array: np.ndarray, paths: Sequence[str], blocks: list[slice], processes: int
) -> Iterator[int]:
    """Let worker w decode the blocks w, w + processes, ..., and yield the size of each block."""
    done: SimpleQueue[int | BaseException] = SimpleQueue()
    stopped = Event()

    def receive(worker: Worker, own: list[slice]) -> None:
        try:
            _send(worker, array.shape[1], [paths[block] for block in own])
            for block in own:
                if not _receive(worker, array[block]) and not stopped.is_set():
                    _decode(array[block], paths[block])  # finds what is wrong, if it is the file
                done.put(len(paths[block]))
        except BaseException as error:
            done.put(error)

    with _workers(processes) as workers:
        for start, worker in enumerate(workers):
            Thread(target=receive, args=(worker, blocks[start::processes]), daemon=True).start()
        try:
            for _ in blocks:
                count = done.get()
                if isinstance(count, BaseException):
                    raise count
                yield count
        finally:
            stopped.set()


@contextmanager
def _workers(count: int) -> Iterator[list[Worker]]:
    root = str(Path(__file__).resolve().parent.parent)
    python_path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", "from data.decoding import serve; serve()"]
    environment = {**os.environ, **one_thread, "PYTHONPATH": python_path}
    pipe = subprocess.PIPE
    workers: list[Worker] = []
    try:
        for _ in range(count):
            workers.append(subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe))
        yield workers
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.wait()
            if worker.stdout is not None:
                worker.stdout.close()


def _send(worker: Worker, size: int, blocks: list[Sequence[str]]) -> None:
    assert worker.stdin is not None
    with suppress(BrokenPipeError), worker.stdin:  # of a worker that is gone nothing is received
        worker.stdin.write(json.dumps([size, blocks]).encode())


def _receive(worker: Worker, rows: np.ndarray) -> bool:
    """Fill the rows of a block; whether the worker could decode it."""
    assert worker.stdout is not None
    if worker.stdout.read(1) != _DONE:
        return False
    view = rows.data.cast("B")
    return worker.stdout.readinto(view) == len(view)  # type: ignore[attr-defined]


def serve() -> None:
    """Work for `decode_files`: read size and paths from stdin, write rows of pixels to stdout."""
    for name in ("SIGINT", "SIGPIPE"):  # ends without a word when the caller does
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    size, blocks = json.load(sys.stdin)
    for paths in blocks:
        try:
            pixels = b"".join(_square(path, size).tobytes() for path in paths)
            sys.stdout.buffer.write(_DONE + pixels)
        except UserError:
            sys.stdout.buffer.write(_FAILED)
    sys.stdout.flush()


def _decode(rows: np.ndarray, paths: Sequence[str]) -> None:
    for row, path in zip(rows, paths, strict=True):
        row[:] = np.asarray(_square(path, rows.shape[1]))


def _square(path: str, size: int) -> Image.Image:
    image = read_image(path)
    if image.size == (size, size):
        return image
    return ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
