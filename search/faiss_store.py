"""The store of one machine: a folder of immutable segments and one manifest that names them.

    manifest.json        what is valid, replaced as a whole: a write counts once this is renamed
    lock                 held by the one writer, let go of by the system when it dies
    segments/000007/     codes.npy, ids.npy, rows.arrow and perhaps a structure
    removed-000009.npy   ids that were removed, ascending

Files are written and brought to disk before the manifest that names them; what no manifest names
was left by a writer that died, and the next one deletes it. Readers map the files of the manifest
they have read; those stay readable to them when a writer deletes them.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from search import structures
from search.manifest import Manifest, read_manifest
from search.rows import check_rows, make_rows, plain
from search.scan import as_columns
from search.segment import FILES, Part, Segment, file_digest, sync_folder, write_segment
from search.snapshot import SEGMENTS, Snapshot, open_snapshot
from search.store import KINDS, Coding, Hits, Ids, Index, Packed, Where, check_k, check_kind
from search.writer_lock import writing
from utils.atomic_file import atomic_path

FOLD = 1 << 16  # an add rewrites the last segment along with it while both stay below this


class FaissIndex(Index):
    """As `Index`, over a folder; `open_snapshot`'s errors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.snapshot = open_snapshot(folder)
        self.coding = self.snapshot.manifest.coding

    @staticmethod
    def create(folder: Path, coding: Coding, kind: str = "flat") -> "FaissIndex":
        """A new, empty index in a new or empty folder.

        Raises:
            UserError: another process is making one there, or there is no such kind.
        """
        check_kind(kind, KINDS, "faiss")
        folder.mkdir(parents=True, exist_ok=True)
        with writing(folder):
            Manifest(coding, kind).write(folder)
        return FaissIndex(folder)

    def __len__(self) -> int:
        return len(self.snapshot)

    def add(self, codes: Packed, rows: pa.Table, model_digest: str | None = None) -> Ids:
        """As `Index.add`."""
        self.coding.check_model(model_digest)
        packed = self.coding.check_codes(codes)
        rows = check_rows(rows, len(packed))
        if not len(packed):
            return np.empty(0, np.int64)
        with self._writing() as now:
            first = now.manifest.next_id
            ids = np.arange(first, first + len(packed))
            parts, kept = [Part(as_columns(packed), ids, rows)], list(now.manifest.segments)
            last = now.views[-1] if now.views else None
            if last and not last.structure and len(last.segment) + len(packed) <= FOLD:
                parts.insert(0, last.segment.part())
                kept.pop()
            kept.append(self._write_segment(now, parts))
            next_id = first + len(packed)
            self._commit(now.manifest.next(next_id=next_id, segments=tuple(kept)))
        return ids

    def remove(self, ids: Ids | Sequence[int]) -> int:
        """As `Index.remove`."""
        chosen = np.unique(np.asarray(ids, np.int64))
        with self._writing() as now:
            now.locate(chosen)
            if len(chosen):
                removed = np.union1d(now.removed, chosen)
                self._commit(now.manifest.next(removed=self._write_removed(now, removed)))
        return len(chosen)

    def search(
        self,
        codes: Packed,
        k: int,
        where: Where = None,
        *,
        model_digest: str | None = None,
        effort: int | None = None,
        exact: bool = False,
    ) -> Hits:
        """As `Index.search`."""
        check_k(k)
        self.coding.check_model(model_digest)
        packed = self.coding.check_codes(codes)
        return Hits(*self.snapshot.nearest(packed, k, where, effort, exact))

    def rows(self, ids: Ids | Sequence[int]) -> pa.Table:
        """As `Index.rows`."""
        wanted = np.asarray(ids, np.int64)
        found = [
            (places, segment.rows_at(positions))
            for segment, places, positions in self.snapshot.locate(wanted)
        ]
        table = make_rows(0)
        if found:
            order = np.argsort(np.concatenate([places for places, _ in found]))
            parts = [
                pa.table({name: plain(rows[name]) for name in rows.column_names})
                for _, rows in found
            ]
            table = pa.concat_tables(parts).take(pa.array(order))
        return table.add_column(0, "id", pa.array(wanted))

    def codes(self, ids: Ids | Sequence[int]) -> Packed:
        """As `Index.codes`."""
        wanted = np.asarray(ids, np.int64)
        packed = np.empty((len(wanted), self.coding.code_bytes), np.uint8)
        for segment, places, positions in self.snapshot.locate(wanted):
            packed[places] = segment.packed(positions, self.coding.code_bytes)
        return packed

    def select(self, where: Where = None, limit: int | None = None, offset: int = 0) -> Ids:
        """As `Index.select`."""
        now = self.snapshot
        found = [
            view.segment.ids if mask is None else view.segment.ids[mask]
            for view, mask in zip(now.views, now.masks(where), strict=True)
        ]
        ids = np.concatenate([np.empty(0, np.int64), *found])
        return ids[offset : None if limit is None else offset + limit]

    def info(self) -> dict[str, Any]:
        """As `Index.info`."""
        now = self.snapshot
        scanned = sum(len(view.segment) for view in now.views if view.structure is None)
        return {
            "store": "faiss",
            "kind": now.manifest.kind,
            "items": len(self),
            "removed": len(now.removed),
            "next_id": now.manifest.next_id,
            "segments": len(now.views),
            "scanned_items": scanned,
            "bytes": sum(map(_file_size, (self.folder / SEGMENTS).rglob("*"))),
            "version": now.manifest.version,
            **self.coding.to_dict(),
        }

    def verify(self) -> list[str]:
        """As `Index.verify`."""
        self.refresh()
        now, last = self.snapshot, -1
        faults: list[str] = []
        for view in now.views:
            faults += view.segment.faults()
            if view.segment.first_id <= last:
                faults.append(f"{view.segment.folder}: its ids do not follow the ones before")
            last = int(view.segment.ids[-1])
            faults += self._spare_bits(view.segment)
        if last >= now.manifest.next_id:
            faults.append(f"{self.folder}: id {last} is there, but the next would be "
                          f"{now.manifest.next_id}")  # fmt: skip
        removed = now.manifest.removed
        if removed and file_digest(self.folder / removed["file"]) != removed["digest"]:
            faults.append(f"{self.folder / removed['file']}: its content changed")
        return faults

    def compact(self, kind: str | None = None) -> None:
        """As `Index.compact`."""
        check_kind(kind or "flat", KINDS, "faiss")
        with self._writing() as now:
            manifest = now.manifest.next(kind=kind or now.manifest.kind)
            if len(now.views) > 1 or len(now.removed):
                alive = [view for view in now.views if view.removed < len(view.segment)]
                parts = [view.segment.part(view.alive) for view in alive]
                merged = (self._write_segment(now, parts),) if parts else ()
                manifest = replace(manifest, segments=merged, removed=None)
            segments = tuple(self._with_structure(each, manifest) for each in manifest.segments)
            self._commit(replace(manifest, segments=segments))

    def refresh(self) -> bool:
        """As `Index.refresh`."""
        before = self.snapshot
        if read_manifest(self.folder).version == before.manifest.version:
            return False
        self.snapshot = open_snapshot(self.folder, before)
        return True

    @contextmanager
    def _writing(self) -> Iterator[Snapshot]:
        """Hold the lock, see the newest state, and clear what writers that died left."""
        with writing(self.folder):
            self.refresh()
            self._sweep()
            yield self.snapshot

    def _commit(self, manifest: Manifest) -> None:
        manifest.write(self.folder)
        self.refresh()
        self._sweep()

    def _sweep(self) -> None:
        """Delete what the manifest does not name."""
        manifest = self.snapshot.manifest
        segments = {stated["name"]: stated for stated in manifest.segments}
        for folder in (self.folder / SEGMENTS).glob("*"):
            if folder.name not in segments:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            built = segments[folder.name].get("structure", {}).get("file")
            for path in folder.iterdir():
                if path.name not in (*FILES, built):
                    path.unlink(missing_ok=True)
        named = manifest.removed["file"] if manifest.removed else None
        for path in (*self.folder.glob("removed-*.npy"), *self.folder.glob(".tmp-*")):
            if path.name != named and path.is_file():
                path.unlink(missing_ok=True)

    def _write_segment(self, now: Snapshot, parts: list[Part]) -> dict[str, Any]:
        name = f"{now.manifest.version + 1:06d}"
        stated = write_segment(self.folder / SEGMENTS / name, parts)
        sync_folder(self.folder / SEGMENTS)
        sync_folder(self.folder)
        return {"name": name, **stated}

    def _write_removed(self, now: Snapshot, removed: Ids) -> dict[str, Any]:
        path = self.folder / f"removed-{now.manifest.version + 1:06d}.npy"
        with atomic_path(path) as temporary:
            np.save(temporary, removed)
        return {"file": path.name, "digest": file_digest(path), "count": len(removed)}

    def _with_structure(self, stated: dict[str, Any], manifest: Manifest) -> dict[str, Any]:
        """What the manifest says of a segment once it has the manifest's kind of structure."""
        kind, built = manifest.kind, stated.get("structure")
        bare = {name: value for name, value in stated.items() if name != "structure"}
        if kind == "flat" or stated["items"] < structures.LEAST_ITEMS:
            return bare
        folder = self.folder / SEGMENTS / stated["name"]
        path = folder / structures.file_name(kind)
        if not (built and built["kind"] == kind and path.is_file()):
            columns = Segment(folder, stated).columns
            structures.build(kind, columns, self.coding.code_length, path)
            sync_folder(folder)
            built = {"kind": kind, "file": path.name, "digest": file_digest(path)}
        return {**bare, "structure": built}

    def _spare_bits(self, segment: Segment) -> list[str]:
        spare = 64 * len(segment.columns) - self.coding.code_length
        if spare and (segment.columns[-1] >> np.uint64(64 - spare)).any():
            return [f"{segment.folder}: codes have bits set past {self.coding.code_length}"]
        return []


def _file_size(path: Path) -> int:
    """Bytes of a file, 0 of a folder and of what a writer has just deleted."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0
