"""Open an index, or make one, in the store that keeps it."""

from pathlib import Path

from search.faiss_store import FaissIndex
from search.store import STORES, Coding, Index
from search.writer_lock import LOCK
from utils.errors import UserError

LANCE_TABLE = "images.lance"  # tells a folder of the lance store


def open_index(place: str | Path) -> Index:
    """Open an index that `create_index` or `python -m search.index build` made.

    Args:
        place: its folder, or a URI such as s3://bucket/index.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if "://" in str(place) or (Path(place) / LANCE_TABLE).exists():
        from search.lance_store import LanceIndex  # a second to import

        return LanceIndex(str(place))
    return FaissIndex(Path(place))


def create_index(
    place: str | Path, coding: Coding, store: str = STORES[0], kind: str = "flat"
) -> Index:
    """Make a new, empty index.

    Raises:
        UserError: the folder holds something, or the store has no such kind.
    """
    check_new(place)
    if store not in STORES:
        raise UserError(f"there is no store {store!r}; they are {', '.join(STORES)}")
    if store == "lance":
        from search.lance_store import LanceIndex  # a second to import

        return LanceIndex.create(str(place), coding, kind)
    if "://" in str(place):
        raise UserError(f"{place}: the faiss store keeps to a folder; --store lance takes a URI")
    return FaissIndex.create(Path(place), coding, kind)


def check_new(place: str | Path) -> None:
    """Refuse a folder that an index cannot be made in, before there is work for it.

    Raises:
        UserError: it is there and not empty.
    """
    folder = Path(place)
    if "://" in str(place) or not folder.exists():
        return
    if not folder.is_dir() or any(each.name != LOCK for each in folder.iterdir()):
        raise UserError(
            f"{place} is there and not empty; name a new folder, or use python -m search.index add"
        )
