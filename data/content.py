"""Content digests of image files, kept beside them so that unchanged files are not read again."""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.source import Source
from utils.atomic_file import write_text
from utils.errors import UserError

DIGEST_BYTES = 16
_INDEX_NAME = "digests.json"


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
        UserError: a file is missing; names its full path.
    """
    root, stats = str(source.root), []  # strings: a Path each takes longer than asking the disk
    for index in indices.tolist():
        try:
            found = os.stat(f"{root}/{source.image_names[index]}")  # noqa: PTH116
        except OSError as error:
            raise _unreadable(source, index, error) from error
        stats.append([found.st_size, found.st_mtime_ns])
    return stats


def file_digests(source: Source, indices: np.ndarray) -> list[bytes]:
    """Return the digests of the files of a source's images.

    An index in the cache folder maps name -> [size, mtime in ns, digest]; a file whose size and
    time are unchanged is not read.

    Raises:
        UserError: a file is missing or unreadable; names its full path.
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
        with ThreadPoolExecutor() as pool:
            digests = pool.map(lambda position: _hash_file(source, int(indices[position])), stale)
            bar = tqdm(digests, "reading files", len(stale), disable=len(stale) < 1000 or None)
            for position, digest in zip(stale, bar, strict=True):
                known[names[position]] = [*stats[position], digest.hex()]
        folder = writable_folder(folders)
        if folder is not None:
            write_text(folder / _INDEX_NAME, json.dumps(known))
    return [bytes.fromhex(known[name][2]) for name in names]


def _read_index(folders: Sequence[Path]) -> dict[str, list]:
    known: dict[str, list] = {}
    for folder in reversed(folders):
        try:
            known |= json.loads((folder / _INDEX_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):  # absent or not ours: its files are read again
            continue
    return known


def _hash_file(source: Source, index: int) -> bytes:
    try:
        return hash_bytes(source.path(index).read_bytes())
    except OSError as error:
        raise _unreadable(source, index, error) from error


def _unreadable(source: Source, index: int, error: OSError) -> UserError:
    return UserError(
        f"image {source.path(index)} cannot be read ({error.strerror}); restore or remove the file"
    )
