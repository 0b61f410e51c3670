"""The pictures of a run's data set: where they lie, or, of one held in memory, files of them."""

import uuid
from pathlib import Path

import pyarrow as pa

from data.source import Source
from engine.config import load_config
from engine.dataset import open_source
from utils.errors import UserError

PICTURES = "pictures"  # of an index's folder
_ENDING = ".png"


def run_source(place: Path) -> Source | None:
    """The data set of a run's folder, or of its codes.npz; None where it is not at hand."""
    config = (place if place.is_dir() else place.parent) / "config.yaml"
    if not config.is_file():
        return None
    try:
        return open_source(load_config(str(config)))
    except UserError as error:
        print(f"pictures are not known: {error}")
        return None


def image_root(source: Source | None) -> str:
    """The folder of the data set's files, empty where there is none."""
    return str(source.root) if source is not None and source.root is not None else ""


def held_in_memory(source: Source | None) -> Source:
    """The data set, if `write_pictures` can write its pictures.

    Raises:
        UserError: it is not at hand, has files already, or is of features.
    """
    if source is None or source.arrays is None:
        raise UserError("--pictures is for a run whose data set is held in memory, and at hand")
    return source


def write_pictures(source: Source, rows: pa.Table, folder: Path) -> None:
    """Write the pictures of all rows as files that `picture_rows` names; all or none.

    Raises:
        UserError: the rows are of another data set.
    """
    numbers = {name: number for number, name in enumerate(source.image_names)}
    temporary = folder.with_name(f".tmp-{uuid.uuid4().hex}")
    for name in rows["path"].to_pylist():
        path = temporary / f"{name}{_ENDING}"
        if name not in numbers or ".." in path.parts:
            raise UserError(f"the data set has no image {name}; the codes are of another")
        path.parent.mkdir(parents=True, exist_ok=True)
        source.read(numbers[name]).save(path)
    temporary.rename(folder)


def picture_rows(rows: pa.Table) -> pa.Table:
    """The rows with the paths of `write_pictures`."""
    paths = [f"{name}{_ENDING}" for name in rows["path"].to_pylist()]
    return rows.set_column(0, rows.schema.field(0), pa.array(paths, pa.string()))
