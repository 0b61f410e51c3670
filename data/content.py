"""What is known of image files, kept beside them so that unchanged files are not read again."""

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.faults import DataError, for_all
from data.image_file import DECODING, unreadable
from data.source import Source
from utils.atomic_file import write_text
from utils.cores import available_cores
from utils.errors import UserError

DIGEST_BYTES = 16
INDEX_NAME = f"checked-{DECODING}.json"  # what another decoding found readable is checked again


def hash_bytes(content: bytes | memoryview) -> bytes:
    """Return the 16-byte BLAKE2b digest that stands for an image's content."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def cache_folders(root: Path) -> list[Path]:
    """Return where a dataset's caches may lie: in its folder, or in the user's cache folder.

    The second is for datasets on read-only disks.
    """
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hash_bytes(os.fsencode(root.resolve())).hex()
    return [root / ".lth_cache", user_cache / "long_tail_hashing" / key]


def writable_folder(folders: Sequence[Path]) -> Path | None:
    """Return the first of the folders that can be written to, made if need be, or None."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    return None


def file_stats(source: Source, indices: np.ndarray) -> list[list[int]]:
    """Return [size in bytes, mtime in ns] of the files of a source's images.

    Raises:
        DataError: files are missing or are none; names their full paths.
    """
    root = str(source.root)

    def ask(index: int) -> list[int]:
        path = os.path.join(root, source.image_names[index])  # noqa: PTH118
        try:
            found = os.stat(path)  # noqa: PTH116
            if not stat.S_ISREG(found.st_mode):
                raise OSError("it is no regular file")
        except (OSError, ValueError) as error:
            raise unreadable(path, error, source.place(index)) from error
        return [found.st_size, found.st_mtime_ns]

    return for_all(ask, indices.tolist())


def checked_digests(source: Source, indices: np.ndarray) -> list[bytes]:
    """Return the digests of the files of a source's images, each of which can be decoded.

    An index in the cache folder maps name -> [size, mtime in ns, digest]; a file whose size and
    time are unchanged is neither read nor decoded again.

    Raises:
        DataError: files are missing or cannot be decoded; names their full paths.
    """
    if source.root is None:
        raise ValueError(f"{source.name} holds its images in memory")
    folders = cache_folders(source.root)
    known = _read_index(folders)
    stats = file_stats(source, indices)
    names = [source.image_names[index] for index in indices]
    stale = [
        position
        for position, (name, stat) in enumerate(zip(names, stats, strict=True))
        if name not in known or known[name][:2] != stat
    ]
    if stale:
        faults = []
        try:
            found = _check_files(source, indices[stale].tolist())
            for position, each in zip(stale, found, strict=True):
                if isinstance(each, UserError):
                    faults.append(str(each))
                else:
                    known[names[position]] = [*stats[position], each.hex()]
        finally:  # what was checked before an interruption is not checked again
            folder = writable_folder(folders)
            if folder is not None:
                write_text(folder / INDEX_NAME, json.dumps(known))
        if faults:
            raise DataError(faults)
    return [bytes.fromhex(known[name][2]) for name in names]


def _check_files(source: Source, indices: list[int]) -> Iterator[bytes | UserError]:
    """Yield, for each image, its file's digest or what is wrong with the file."""

    def check(index: int) -> bytes | UserError:
        path = source.path(index)
        try:
            source.check(index)
            return hash_bytes(path.read_bytes())
        except OSError as error:
            return unreadable(path, error, source.place(index))
        except UserError as error:
            return error

    pool = ThreadPoolExecutor(available_cores())
    try:
        found = pool.map(check, indices)
        yield from tqdm(found, "checking files", len(indices), disable=len(indices) < 1000 or None)
    finally:
        pool.shutdown(cancel_futures=True)


def _read_index(folders: Sequence[Path]) -> dict[str, list]:
    known: dict[str, list] = {}
    for folder in reversed(folders):
        try:
            found = json.loads((folder / INDEX_NAME).read_text(encoding="utf-8"))
            known |= {name: entry for name, entry in found.items() if _is_entry(entry)}
        except (OSError, ValueError, AttributeError):  # absent or not ours: files are read again
            continue
    return known


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[2], str):
        return False
    return len(entry[2]) == 2 * DIGEST_BYTES and not entry[2].strip("0123456789abcdef")
