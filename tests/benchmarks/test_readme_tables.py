"""The README and the pages of docs/ show what the records say."""

import pytest

from benchmarks import readme_tables


@pytest.mark.parametrize("page", readme_tables.PAGES, ids=lambda page: page.name)
def test_a_pages_tables_are_those_of_the_records(page):
    text = page.read_text(encoding="utf-8")
    assert readme_tables.fill(text, readme_tables.PAGES[page]) == text


def test_a_seed_run_again_counts_once_with_its_last_figures(monkeypatch):
    row = {
        "imbalance_factor": "100", "method": "direct", "code_length": "64", "map_many": "",
        "map_medium": "", "map_few": "", "train_images": "2598", "num_epochs": "100",
        "train_seconds": "10", "gpu": "G",
    }  # fmt: skip
    rows = [
        {**row, "seed": "0", "map": "0.1"},
        {**row, "seed": "0", "map": "0.2"},
        {**row, "seed": "1", "map": "0.4"},
    ]
    monkeypatch.setattr(readme_tables, "read_records", lambda name: rows)
    (line,) = readme_tables.cifar100_lt().splitlines()[2:]
    assert line.split(" | ")[3] == "0.3000"
    assert line.split(" | ")[-2] == "2"


def test_a_line_has_all_code_lengths_of_a_config_beside_the_published_figures(monkeypatch):
    row = {
        "config": "config/Cifar10/adsh.py", "backbone": "net", "train_images": "58500", "gpu": "G",
        "map_index_order": "",
    }  # fmt: skip
    rows = [
        {**row, "code_length": "24", "seed": "0", "map": "0.92"},
        {**row, "code_length": "12", "seed": "0", "map": "0.1"},
        {**row, "code_length": "12", "seed": "0", "map": "0.9", "map_index_order": "0.8"},
        {**row, "config": "config/Cifar10/other.py", "code_length": "12", "seed": "0", "map": "1"},
    ]
    monkeypatch.setattr(readme_tables, "read_records", lambda name: rows)
    (line,) = readme_tables.cifar10().splitlines()[2:]
    cells = line.strip("| ").split(" | ")
    assert cells[2:6] == ["12 24", "0.9000 0.9200", "0.8000 -", "0.9075 0.9047"]
