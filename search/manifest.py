"""The one file that says what of an index's folder is valid; replaced as a whole."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from search.segment import sync_folder
from search.store import Coding
from utils.atomic_file import write_json
from utils.errors import UserError

NAME = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """A state of an index.

    Attributes:
        coding: which codes it holds.
        kind: the structure that `compact` builds.
        version: counts the writes.
        next_id: the id of the next item.
        segments: of each its name, number of items, digests of its files and, where there is
            one, its structure's kind and digest; their ids ascend throughout.
        removed: file, digest and number of the ids that were removed; None for none.
    """

    coding: Coding
    kind: str = "flat"
    version: int = 0
    next_id: int = 0
    segments: tuple[dict[str, Any], ...] = ()
    removed: dict[str, Any] | None = None

    def next(self, **changes: Any) -> "Manifest":
        """The manifest of the next write."""
        return replace(self, version=self.version + 1, **changes)

    def write(self, folder: Path) -> None:
        """Make this the folder's state: when the call returns it is on disk."""
        values = {"format": FORMAT, "store": "faiss", **asdict(self)}
        write_json(folder / NAME, values)
        sync_folder(folder)


def read_manifest(folder: Path) -> Manifest:
    """The folder's state.

    Raises:
        UserError: there is none, or it is damaged or of another version.
    """
    path = folder / NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT or values.pop("store") != "faiss":
            raise UserError(f"{path}: of another version; build the index again with this one")
        values["coding"] = Coding.from_dict(values["coding"])
        values["segments"] = tuple(values["segments"])
        return Manifest(**values)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder}: no index here; make one with python -m search.index build"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: damaged ({reason}); restore it, or build the index again"
        ) from None
