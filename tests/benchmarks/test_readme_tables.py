"""The README and the pages of docs/ show what the records say."""

import pytest

from benchmarks import readme_tables
from benchmarks.long_tail_table import METHODS, current_recipe


@pytest.mark.parametrize("page", readme_tables.PAGES, ids=lambda page: page.name)
def test_a_pages_tables_are_those_of_the_records(page):
    text = page.read_text(encoding="utf-8")
    assert readme_tables.fill(text, readme_tables.PAGES[page]) == text


LONG_TAIL_ROW = {
    "imbalance_factor": "100", "method": "hashnet", "code_length": "64", "seed": "0",
    "map": "0.2", "map_many": "0.5", "map_medium": "0.4", "map_few": "0.3",
    "num_epochs": "100", "train_seconds": "10", "gpu": "G",
    "recipe": current_recipe("100", "hashnet"),
}  # fmt: skip


def _cells(table, method):
    (line,) = [line for line in table.splitlines() if f"| {method} |" in line]
    return line.strip("| ").split(" | ")


def test_a_long_tail_line_has_mean_and_deviation_over_seeds_a_seed_run_again_counts_once(
    monkeypatch,
):
    rows = [
        {**LONG_TAIL_ROW, "map": "0.9", "train_seconds": "1000"},
        {**LONG_TAIL_ROW, "map": "0.2"},
        {**LONG_TAIL_ROW, "map": "0.4", "seed": "1", "gpu": "H"},
        {**LONG_TAIL_ROW, "map": "0.7", "code_length": "96", "train_seconds": "40"},
        {**LONG_TAIL_ROW, "method": "unknown"},
    ]
    monkeypatch.setattr(readme_tables, "read_records", lambda name: rows)
    assert _cells(readme_tables.cifar100_lt(), "HashNet") == [
        "100", "HashNet", "-", "0.3000 ± 0.1414", "0.7000", "0.1444 0.1559 0.1631",
        "100", "20 s", "2 1", "G / H",
    ]  # fmt: skip
    groups = readme_tables.cifar100_lt_groups()
    assert _cells(groups, "HashNet")[2:] == ["-", *["0.5000 0.4000 0.3000"] * 2]


def test_figures_of_an_earlier_config_are_marked(monkeypatch):
    before = {**LONG_TAIL_ROW, "recipe": "before"}
    rows = [before, {**before, "code_length": "96", "recipe": LONG_TAIL_ROW["recipe"]}]
    monkeypatch.setattr(readme_tables, "read_records", lambda name: rows)
    assert _cells(readme_tables.cifar100_lt(), "HashNet")[2:5] == ["-", "0.2000†", "0.2000"]
    groups = _cells(readme_tables.cifar100_lt_groups(), "HashNet")
    assert groups[2:] == ["-", "0.5000 0.4000 0.3000†", "0.5000 0.4000 0.3000"]


def test_the_papers_figures_stand_above_those_of_each_imbalance_factor(monkeypatch):
    monkeypatch.setattr(readme_tables, "read_records", lambda name: [LONG_TAIL_ROW])
    lines = readme_tables.cifar100_lt().splitlines()[2:]
    assert [line.split(" | ")[:2] for line in lines] == [
        ["| 100", "the paper's LTHNet, ResNet-34"],
        ["| 100", "HashNet"],
        ["| 50", "the paper's LTHNet, ResNet-34"],
        ["| 1", "the paper's LTHNet, ResNet-34"],
    ]
    assert lines[0].split(" | ")[2:5] == ["0.1819", "0.2376", "0.2620"]


def test_differences_stand_by_code_length_with_p_where_they_may_be_none(monkeypatch):
    row = {
        "imbalance_factor": "100", "method": "ours", "against": "csq", "code_length": "64",
        "difference": "0.0123", "low": "0.0101", "high": "0.0149", "p_value": "0.0001",
        "dataset": "Cifar100_LT", "seeds": "3",
        "recipe": current_recipe("100", "ours"), "against_recipe": current_recipe("100", "csq"),
    }  # fmt: skip
    rows = [
        {**row, "difference": "0.5"},
        row,
        {**row, "code_length": "32", "low": "-0.001", "p_value": "0.0714", "seeds": "1"},
        {**row, "code_length": "96", "against_recipe": "before"},
        {**row, "dataset": "Digits_LT", "difference": "0.7"},
    ]
    monkeypatch.setattr(readme_tables, "read_records", lambda name: rows)
    (line,) = readme_tables.cifar100_lt_significance().splitlines()[2:]
    assert line.strip("| ").split(" | ")[1:] == [
        "stage 2, meta-embedding - CSQ",
        "+0.0123 (-0.0010 to +0.0149, p = 0.071), 1 seed",
        "+0.0123 (+0.0101 to +0.0149), 3 seeds",
        "+0.0123 (+0.0101 to +0.0149), 3 seeds†",
    ]


def test_every_method_of_the_long_tail_tool_has_a_line():
    assert set(readme_tables.LONG_TAIL) == set(METHODS)


def test_a_line_has_all_code_lengths_of_a_config_beside_the_published_figures(monkeypatch):
    row = {
        "config": "config/Cifar10/adsh.py", "backbone": "net", "train_images": "58500", "gpu": "G",
        "map_index_order": "", "recipe": "new",
    }  # fmt: skip
    rows = [
        {**row, "code_length": "24", "seed": "1", "map": "0.5", "recipe": "old"},
        {**row, "code_length": "24", "seed": "0", "map": "0.92"},
        {**row, "code_length": "12", "seed": "0", "map": "0.1"},
        {**row, "code_length": "12", "seed": "0", "map": "0.9", "map_index_order": "0.8"},
        {**row, "config": "config/Cifar10/other.py", "code_length": "12", "seed": "0", "map": "1"},
    ]
    monkeypatch.setattr(readme_tables, "read_records", lambda name: rows)
    (line,) = readme_tables.cifar10().splitlines()[2:]
    cells = line.strip("| ").split(" | ")
    assert cells[2:6] == ["12 24", "0.9000 0.9200", "0.8000 -", "0.9075 0.9047"]
