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
