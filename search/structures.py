"""FAISS's binary structures over a segment: inverted lists, HNSW graphs, multi-index hashing.

A structure is derived from a segment's codes, kept beside them in one file, and may be thrown
away: a segment without one is scanned.

References: FAISS (Douze et al., "The Faiss library", 2024); HNSW (Malkov and Yashunin, TPAMI
2018); multi-index hashing (Norouzi, Punjani and Fleet, CVPR 2012).
"""

import threading
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from search.lists import find_centres, nearest_centres
from search.scan import Found, Words, as_packed, nearest_of
from search.store import Packed
from utils.atomic_file import atomic_path

LEAST_ITEMS = 10_000  # a smaller segment is scanned in no time
TRAINING, ROUNDS = 32, 8  # items an inverted list, and rounds, to find its centre by
PART = 1 << 22  # items that are added to lists at a time
NEIGHBOURS = 16  # of a node of HNSW's graph; twice as many in its lowest layer
CONSTRUCTION = 40  # candidates while HNSW's graph is built
LONGEST_KEY = 32  # bits of a table's key
EFFORT = {"ivf": 16, "hnsw": 64, "mih": 1}  # lists probed, candidates kept, bits flipped


def file_name(kind: str) -> str:
    """The file of a kind of structure, in a segment's folder."""
    return f"{kind}.faiss"


def build(kind: str, columns: Words, code_length: int, path: Path) -> None:
    """Build the structure of all codes of a segment, and write it."""
    if kind == "ivf":
        structure = _inverted_lists(columns, code_length)
    else:
        structure = make_structure(kind, columns.shape[1], 8 * -(-code_length // 8))
        structure.add(as_packed(columns, -(-code_length // 8)))
    with atomic_path(path) as temporary:
        faiss.write_index_binary(structure, str(temporary))


def make_structure(kind: str, items: int, bits: int) -> Any:
    """An empty graph, or empty tables for so many items."""
    faiss.omp_set_num_threads(torch.get_num_threads())
    structure: Any
    if kind == "hnsw":
        structure = faiss.IndexBinaryHNSW(bits, NEIGHBOURS)
        structure.hnsw.efConstruction = CONSTRUCTION
        return structure
    # Norouzi et al.: with substrings of about log2(items) bits a bucket holds about one item.
    tables = max(1, round(bits / np.log2(max(2, items))))
    return faiss.IndexBinaryMultiHash(bits, tables, min(bits // tables, LONGEST_KEY))


def _inverted_lists(columns: Words, code_length: int) -> Any:
    """All codes in lists around centres that are found from a sample of them."""
    items, width = columns.shape[1], -(-code_length // 8)
    lists = int(np.clip(2 * np.sqrt(items), 1, items / TRAINING + 1))
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.choice(items, min(items, TRAINING * lists), replace=False))
    centres = find_centres(np.ascontiguousarray(columns[:, chosen].T), lists, ROUNDS, rng)
    quantizer = faiss.IndexBinaryFlat(8 * width)
    quantizer.add(as_packed(centres.T, width))
    structure: Any = faiss.IndexBinaryIVF(quantizer, 8 * width, lists)
    structure.is_trained = True
    for start in range(0, items, PART):
        rows = np.ascontiguousarray(columns[:, start : start + PART].T)
        packed, nearest = as_packed(rows.T, width), nearest_centres(rows, centres)
        ids = np.arange(start, start + len(rows))
        pointers = [faiss.swig_ptr(each) for each in (packed, ids, nearest)]
        structure.add_core(len(rows), *pointers)
    return structure


class Structure:
    """A segment's structure, read when it is first searched."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind, self.path = kind, path
        self.lock = threading.Lock()  # the effort is set on the structure itself
        self.opened: Any = None

    def open(self) -> bool:
        """Read it unless that is done; False when the file is no longer there."""
        with self.lock:
            if self.opened is None and self.path.is_file():
                self.opened = faiss.read_index_binary(str(self.path))
            return self.opened is not None

    def search(self, query: Packed, k: int, effort: int | None) -> Found:
        """The k nearest that an opened structure finds, ordered by (distance, position).

        Among those at the last distance FAISS chooses.
        """
        with self.lock:
            # FAISS shares queries among threads: more threads would only wait, and by spinning.
            faiss.omp_set_num_threads(max(1, min(torch.get_num_threads(), len(query))))
            set_effort(self.opened, self.kind, EFFORT[self.kind] if effort is None else effort)
            distances, positions = self.opened.search(query, k)
        return nearest_of([(positions, distances)], k)


def set_effort(structure: Any, kind: str, effort: int) -> None:
    """How far a search looks."""
    if kind == "ivf":
        structure.nprobe = effort
    elif kind == "hnsw":
        structure.hnsw.efSearch = effort
    else:
        structure.nflip = effort
