"""An index of codes on disk: `python -m search.index build` and others make and keep one."""

from pathlib import Path

from search.faiss_store import FaissIndex
from search.store import STORES, Coding, Index


def open_index(folder: str | Path) -> Index:
    """Open an index that `create_index` or `python -m search.index build` made.

    Raises:
        UserError: there is none, or it is damaged.
    """
    return FaissIndex(Path(folder))


def create_index(
    folder: str | Path, coding: Coding, store: str = STORES[0], kind: str = "flat"
) -> Index:
    """Make a new, empty index.

    Raises:
        UserError: the folder holds something, or the store has no such kind.
    """
    return FaissIndex.create(Path(folder), coding, kind)
