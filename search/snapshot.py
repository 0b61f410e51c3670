"""What a reader sees of an index's folder: the files of one manifest, opened."""

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from search.manifest import Manifest, read_manifest
from search.scan import Found, as_rows, nearest_of, scan
from search.segment import Segment, load_array
from search.store import Ids, Packed, Where, no_such_id
from search.structures import Structure
from search.where import Condition, parse
from utils.errors import UserError

SEGMENTS = "segments"
TRIES = 20  # to open files that a writer replaces meanwhile
FILTERS_KEPT = 8  # whose masks are kept, the last ones used

Mask = NDArray[np.bool_]


class Snapshot:
    """The segments of a manifest, which of their items are alive, and their structures.

    Args:
        folder: the index's.
        manifest: read from there.
        before: an older snapshot, whose open files are taken over.

    Raises:
        FileNotFoundError: a writer has replaced the files since.
        OSError, ValueError: files are damaged.
    """

    def __init__(self, folder: Path, manifest: Manifest, before: "Snapshot | None" = None) -> None:
        self.folder, self.manifest = folder, manifest
        known = {view.segment.name: view for view in before.views} if before else {}
        self.removed = _read_removed(folder, manifest)
        self.views: list[SegmentView] = [
            SegmentView(folder / SEGMENTS / stated["name"], stated, self.removed, known)
            for stated in manifest.segments
        ]
        self.first_ids = np.array([view.segment.first_id for view in self.views], np.int64)
        self.filters: OrderedDict[str | Condition, list[Mask]] = OrderedDict()
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return sum(len(view.segment) for view in self.views) - len(self.removed)

    def nearest(
        self, packed: Packed, k: int, where: Where, effort: int | None, exact: bool
    ) -> Found:
        """Ids and distances of the nearest, (queries, k), ordered by (distance, id)."""
        masks = self.masks(where)
        length = self.manifest.coding.code_length
        nothing = np.full((len(packed), k), -1)
        found: list[Found] = [(nothing.astype(np.int64), nothing.astype(np.int32))]
        for view, mask in zip(self.views, masks, strict=True):
            asked = where is None and not exact
            if asked and view.structure is not None and view.structure.open():
                positions, distances = view.approximate(packed, k, effort)
            else:
                columns = view.segment.columns
                positions, distances = scan(as_rows(packed), columns, mask, length, k)
            ids = np.where(positions < 0, -1, view.segment.ids[positions])
            found.append((ids, distances))
        return nearest_of(found, k)

    def masks(self, where: Where) -> list[Mask | None]:
        """Which items of each segment may be found; None for all of them."""
        if where is None:
            return [view.alive for view in self.views]
        with self.lock:
            if where in self.filters:
                self.filters.move_to_end(where)
                return list(self.filters[where])
        condition = parse(where)
        found = []
        for view in self.views:
            segment = view.segment
            table = segment.rows.append_column("id", pa.array(segment.ids))
            mask = pc.fill_null(condition.mask(table), False).to_numpy()
            found.append(mask if view.alive is None else mask & view.alive)
        with self.lock:
            self.filters[where] = found
            if len(self.filters) > FILTERS_KEPT:
                self.filters.popitem(last=False)
        return list(found)

    def locate(self, ids: Ids) -> list[tuple[Segment, Ids, Ids]]:
        """Where items are: of each segment, which of `ids` it holds and at what positions.

        Raises:
            UserError: an id is not there.
        """
        owner = np.searchsorted(self.first_ids, ids, "right") - 1
        gone = (owner < 0) | np.isin(ids, self.removed)
        found = []
        for number, view in enumerate(self.views):
            (mine,) = np.nonzero(owner == number)
            positions = view.segment.positions(ids[mine])
            gone[mine[positions < 0]] = True
            if len(mine):
                found.append((view.segment, mine, positions))
        if gone.any():
            raise no_such_id(int(ids[gone][0]))
        return found


class SegmentView:
    """A segment as one snapshot sees it."""

    def __init__(
        self, folder: Path, stated: dict[str, Any], removed: Ids, known: dict[str, "SegmentView"]
    ) -> None:
        old = known.get(stated["name"])
        self.segment: Segment = old.segment if old else Segment(folder, stated)
        self.structure: Structure | None = None
        built = stated.get("structure")
        if built and old and old.structure and old.structure.kind == built["kind"]:
            self.structure = old.structure
        elif built:
            self.structure = Structure(built["kind"], folder / built["file"])
        first, last = np.searchsorted(removed, [self.segment.ids[0], self.segment.ids[-1] + 1])
        self.removed = int(last - first)
        self.alive: Mask | None = None
        if self.removed:
            self.alive = np.ones(len(self.segment), bool)
            self.alive[self.segment.positions(removed[first:last])] = False

    def approximate(self, packed: Packed, k: int, effort: int | None) -> Found:
        """What the structure finds among the items alive: it is asked for more until k are."""
        assert self.structure is not None
        wanted = k + min(k, self.removed)
        while True:
            wanted = min(wanted, len(self.segment))
            positions, distances = self.structure.search(packed, wanted, effort)
            exhausted = (positions[:, -1] < 0) | (wanted == len(self.segment))
            if self.alive is not None:
                positions = np.where(self.alive[positions], positions, -1)
            if (((positions >= 0).sum(1) >= k) | exhausted).all():
                return nearest_of([(positions, distances)], k)
            wanted *= 2


def open_snapshot(folder: Path, before: Snapshot | None = None) -> Snapshot:
    """The folder's newest state.

    Raises:
        UserError: there is no index, or its files are damaged.
    """
    for attempt in range(TRIES):
        manifest = read_manifest(folder)
        try:
            return Snapshot(folder, manifest, before)
        except FileNotFoundError as error:
            if attempt + 1 == TRIES or read_manifest(folder).version == manifest.version:
                raise _damaged(folder, error) from None
        except (OSError, ValueError, KeyError) as error:
            raise _damaged(folder, error) from None
    raise AssertionError("not reached")


def _read_removed(folder: Path, manifest: Manifest) -> Ids:
    if manifest.removed is None:
        return np.empty(0, np.int64)
    return load_array(folder / manifest.removed["file"], mapped=False)


def _damaged(folder: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(
        f"{folder}: files of the index are missing or damaged ({reason}); "
        "python -m search.index verify lists them"
    )
