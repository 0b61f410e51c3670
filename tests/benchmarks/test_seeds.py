"""Cells of a table over seeds: the last row of each, means and deviations."""

import statistics

from benchmarks.seeds import by_cell, mean, mean_and_deviation, read_rows


def test_rows_of_a_cell_are_the_last_of_each_seed(tmp_path):
    path = tmp_path / "record.csv"
    path.write_text(
        "imbalance_factor,method,code_length,seed,map,recipe\n"
        "100,ours,64,0,0.1,a\n100.0,ours,64,1,0.2,a\n100,ours,64,0,0.3,a\n,ours,32,0,0.4,\n"
    )
    found = by_cell(read_rows(path))
    assert {cell: [row["map"] for row in rows] for cell, rows in found.items()} == {
        ("100", "ours", 64): ["0.3", "0.2"],
        ("", "ours", 32): ["0.4"],
    }


def test_seeds_of_another_recipe_than_the_last_rows_are_left_out():
    cell = {"imbalance_factor": "100", "method": "ours", "code_length": "64"}
    rows = [
        {**cell, "seed": seed, "recipe": recipe, "map": value}
        for seed, recipe, value in [
            *[("0", "old", "0.1"), ("1", "old", "0.2"), ("2", "old", "0.3")],
            *[("1", "new", "0.4"), ("0", "new", "0.5")],
        ]
    ]
    (found,) = by_cell(rows).values()
    assert [row["map"] for row in found] == ["0.4", "0.5"]
    (found,) = by_cell(rows, lambda factor, method: "old").values()
    assert [row["map"] for row in found] == ["0.1", "0.2", "0.3"]
    (found,) = by_cell(rows, lambda factor, method: "never run").values()
    assert [row["map"] for row in found] == ["0.4", "0.5"]


def test_rows_of_before_recipes_are_of_one(tmp_path):
    path = tmp_path / "record.csv"
    path.write_text("imbalance_factor,method,code_length,seed,map\n1,ours,64,0,0.1\n")
    (found,) = by_cell(read_rows(path)).values()
    assert [row["map"] for row in found] == ["0.1"]


def test_no_file_has_no_rows(tmp_path):
    assert read_rows(tmp_path / "none.csv") == []


def test_mean_and_sample_deviation_leave_out_empty_figures():
    values = [0.1, 0.25, 0.3]
    rows = [{"map": str(value)} for value in values] + [{"map": ""}]
    deviation = statistics.stdev(values)
    assert mean_and_deviation(rows, "map") == f"{sum(values) / 3:.4f} ± {deviation:.4f}"
    assert mean_and_deviation(rows[:1], "map") == "0.1000"
    assert mean(rows[3:], "map") == mean_and_deviation(rows[3:], "map") == "-"
