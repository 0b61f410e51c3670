"""Rows of one table cell over seeds, of one recipe: their mean and their spread."""

import csv
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

Row = dict[str, str]
Cell = tuple[str, str, int]  # imbalance factor as 100, method, code length


def read_rows(path: Path) -> list[Row]:
    """Rows of a record in the order in which they were run; none where there is no file.

    Those of before recipes have an empty one.
    """
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return [{"recipe": "", **row} for row in csv.DictReader(stream)]


def cell_of(row: Row) -> Cell:
    """What a row is a figure of, but for its seed."""
    factor = row["imbalance_factor"]
    return (f"{float(factor):g}" if factor else "", row["method"], int(row["code_length"]))


def by_cell(
    rows: Iterable[Row], current: Callable[[str, str], str] | None = None
) -> dict[Cell, list[Row]]:
    """The rows of each cell, one a seed and of one recipe, as `one_recipe` says.

    Args:
        current: the recipe that an imbalance factor's method has now.
    """
    cells: dict[Cell, list[Row]] = {}
    for row in rows:
        cells.setdefault(cell_of(row), []).append(row)
    return {
        cell: one_recipe(found, current(*cell[:2]) if current else None)
        for cell, found in cells.items()
    }


def one_recipe(rows: list[Row], wanted: str | None = None) -> list[Row]:
    """Rows of one recipe, since figures of two are no seeds of one; a seed counts once, its last.

    That is the wanted recipe, or the last row's where there is none of it.
    """
    recipes = [row["recipe"] for row in rows]
    chosen = wanted if wanted in recipes else recipes[-1]
    seeds = {row["seed"]: row for row in rows if row["recipe"] == chosen}
    return list(seeds.values())


def mean(rows: list[Row], column: str) -> str:
    """Mean of a column, of the rows that have it, to four places; - where none has."""
    values = _values(rows, column)
    return f"{statistics.mean(values):.4f}" if values else "-"


def mean_and_deviation(rows: list[Row], column: str) -> str:
    """`mean`, with ± the standard deviation over seeds (n - 1 in it) where there are several."""
    values = _values(rows, column)
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return mean(rows, column) + spread


def _values(rows: list[Row], column: str) -> list[float]:
    return [float(row[column]) for row in rows if row[column]]
