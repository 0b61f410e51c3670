"""Rows of logs/records/*.csv: one a finished run, from which the README's tables are made."""

import csv
import fcntl
import io
import os
from pathlib import Path
from typing import Any

from engine.plain_values import check_text
from utils.atomic_file import write_text
from utils.errors import UserError

COLUMNS = [
    "config",
    "method",
    "dataset",
    "protocol",
    "imbalance_factor",
    "code_length",
    "seed",
    "map",
    "map_many",
    "map_medium",
    "map_few",
    "train_seconds",  # of a run of several code lengths: of all together, as the next
    "encode_seconds",
    "evaluate_seconds",
    "images_per_second",
    "gpu",
    "torch",
    "commit",
    "date",
    "backbone",
    "num_epochs",
    "batch_size",
    "train_images",
    "accuracy",
    "split_digest",
    "map_index_order",  # ties broken by the database's order; codes of few bits only
    "metric",  # the protocol's: MAP@ALL or MAP@K
    "headline",  # its value
    "recipe",  # see engine/recipe.py
]
# What differs when a run whose training had ended is tested again; all else then is equal.
OF_THE_TEST = ("encode_seconds", "evaluate_seconds", "gpu", "torch", "commit", "date")


def append_record(
    path: str | Path, metrics: dict[str, Any], config: dict[str, Any], resumed: bool = False
) -> None:
    """Add one run's figures as a row; the file is made with its header if it is new.

    Runs that record at once wait for each other.

    Args:
        resumed: leave it out if the run's row is there; it knows it by the seconds of training.

    Raises:
        UserError: if the file is there with other columns.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        before = path.read_text(encoding="utf-8") if path.exists() else ",".join(COLUMNS) + "\n"
        check_columns(before, path)
        row = make_row(metrics, config)
        rows = list(csv.DictReader(io.StringIO(before), restval=""))
        if not (resumed and _identity(row) in map(_identity, rows)):
            write_text(path, _with_row(before, rows, row))
    finally:
        os.close(folder)


def check_record(path: str | Path) -> None:
    """Raise a UserError if rows cannot be added to `path`, before hours are spent on a run."""
    check_text(str(path), "--record")
    path = Path(path)
    try:
        if path.exists():
            check_columns(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--record {path}: not a readable CSV file; use another") from error
    folder = next(each for each in path.absolute().parents if each.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise UserError(f"--record {path}: {folder} is no folder that can be written; use another")


def check_columns(text: str, path: str | Path) -> None:
    """Raise a UserError unless the header is this project's, or that of before recipes.

    And unless every row has a value for each of its columns.
    """
    header, *rows = csv.reader(io.StringIO(text)) if text else [[]]
    if header not in (COLUMNS, COLUMNS[:-1]):
        raise UserError(
            f"--record {path}: its columns are not those of a run's record; use another"
        )
    for number, row in enumerate(rows, 1):
        if row and len(row) != len(header):
            raise UserError(
                f"--record {path}: row {number} has {len(row)} values, expected {len(header)}, "
                "as its header; mend it or use another"
            )


def make_row(metrics: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The columns of a record, from metrics.json's values and the resolved config."""
    environment, seconds = metrics["environment"], metrics["seconds"]
    groups = {f"map_{name}": value for name, value in metrics["groups"].items()}
    row = {
        **{name: metrics.get(name) for name in COLUMNS},
        **groups,
        **{f"{name}_seconds": seconds.get(name) for name in ("train", "encode", "evaluate")},
        "gpu": environment["gpu"] or "CPU",
        "torch": environment["torch"],
        "commit": environment["commit"],
        "backbone": _backbone(config),
        "num_epochs": config["training_opt"]["num_epochs"],
        "batch_size": config["training_opt"]["batch_size"],
        "train_images": metrics["counts"]["train"],
    }
    return {name: _short(row[name]) for name in COLUMNS}


def _with_row(before: str, rows: list[dict[str, Any]], row: dict[str, Any]) -> str:
    """A record's text with one more row; the others as they are, if the header has all columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if before.startswith(",".join(COLUMNS)):
        text.write(before if before.endswith("\n") else before + "\n")
    else:
        writer.writeheader()
        writer.writerows(rows)
    writer.writerow(row)
    return text.getvalue()


def _identity(row: dict[str, Any]) -> list[str]:
    """What names a run in its row, as the file holds it; rows of before have no recipe."""
    values = [row[name] for name in COLUMNS if name not in (*OF_THE_TEST, "recipe")]
    return ["" if value is None else str(value) for value in values]


def _backbone(config: dict[str, Any]) -> str:
    """The first network's name, or the feature file's where there is no network."""
    if not config["networks"]:
        return Path(config["data"]["params"].get("file", "")).stem
    first = next(iter(config["networks"].values()))
    return first["params"].get("arch", Path(first["def_file"]).stem)


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
