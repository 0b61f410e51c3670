"""The kept precisions of the recorded runs are those of the rows."""

import csv
from pathlib import Path

import numpy as np
import pytest

from benchmarks.precisions import read_precisions
from benchmarks.seeds import read_rows

RECORDS = Path("logs/records")
KEPT = sorted((RECORDS / "precisions").glob("*.npz"))


def _cell(row):
    names = ("method", "code_length", "seed", "recipe")
    return (float(row["imbalance_factor"]), *(str(row[name]) for name in names))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_their_mean_is_the_map_of_the_runs_row(path):
    found = read_precisions(path)
    rows = [
        row for row in read_rows(RECORDS / "cifar100_lt.csv") if _cell(row) == _cell(found.about)
    ]
    assert len(found.values) == 10_000
    assert found.values.mean() == pytest.approx(float(rows[-1]["map"]), abs=1e-5)


def test_their_differences_are_those_of_the_record():
    kept = {_cell(each.about): each.values for each in map(read_precisions, KEPT)}
    with (RECORDS / "significance.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    compared = 0
    for row in rows:
        found = []
        for method, recipe in (("method", "recipe"), ("against", "against_recipe")):
            about = {**row, "method": row[method], "recipe": row[recipe]}
            seeds = [kept.get(_cell({**about, "seed": seed})) for seed in range(int(row["seeds"]))]
            found += [seeds] if all(each is not None for each in seeds) else []
        if len(found) == 2:
            compared += 1
            difference = np.mean(found[0]) - np.mean(found[1])
            assert difference == pytest.approx(float(row["difference"]), abs=1e-5)
    assert compared >= 2
