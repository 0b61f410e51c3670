"""Regenerate tables of the README and of docs/ from logs/records.

`python -m benchmarks.readme_tables`. Each table stands between two comments,
`<!-- table: NAME -->` and `<!-- end -->`.
"""

import re
import statistics
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from benchmarks import published
from benchmarks.long_tail_table import current_recipe
from benchmarks.seeds import Row, by_cell, mean, mean_and_deviation, one_recipe, read_rows
from utils.atomic_file import write_text

PROJECT = Path(__file__).resolve().parent.parent
RECORDS = PROJECT / "logs" / "records"
PAGES = {
    PROJECT / "README.md": [
        "cifar100_lt",
        "cifar100_lt_significance",
        "cifar100_lt_groups",
        "cifar10",
        "digits_lt",
    ],
    PROJECT / "docs" / "performance.md": ["speed"],
}

SHALLOW = {
    "pcah": "PCA of the pixels + sign",
    "lsh": "locality-sensitive hashing",
    "sh": "spectral hashing",
    "itq": "ITQ",
    "sdh": "supervised discrete hashing",
}
DEEP = {"hashnet": "HashNet", "csq": "CSQ", "orthohash": "OrthoHash"}
CIFAR10 = {  # config: what its row says, and the published figures by code length
    "Cifar10/adsh": ("ADSH", published.ADSH),
    "Cifar10/mah_flat": ("MAH, flat", published.MAH_FLAT),
    "Cifar10/mah_cascade": ("MAH, cascade", published.MAH_CASCADE),
    "Cifar10_Incremental/adsh_base": ("ADSH on 7 classes, asked about 10", published.ADSH_BASE),
    "Cifar10_Incremental/dihn": ("DIHN, then the other 3", published.DIHN),
    "Cifar10/hashnet": ("HashNet", {}),
    "Cifar10_Gist/sh": ("spectral hashing", published.SH_GIST),
    "Cifar10_Gist/itq": ("ITQ", {}),
    "Cifar10_Gist/sdh": ("SDH", {}),
    "Cifar10_Features/sh": ("spectral hashing", published.SH_ALEXNET),
    "Cifar10_Features/itq": ("ITQ", {}),
    "Cifar10_Features/sdh": ("SDH", {}),
}
STAGES = {"direct": "stage 1, direct feature", "ours": "stage 2, meta-embedding"}
LONG_TAIL = {
    "lthnet_sq_k0": "LTHNet_sq as published, k = 0",
    "lthnet_sq": "LTHNet_sq as published, k = 3",
    "lthnet_k0": "LTHNet as published, k = 0",
    "lthnet": "LTHNet as published, k = 3",
    **DEEP,
    **STAGES,
}
CODE_LENGTHS = (32, 64, 96)
EARLIER = "†"  # a run by an earlier form of its config
GROUPS = ("map_many", "map_medium", "map_few")


def read_records(name: str) -> list[Row]:
    """Rows of logs/records/NAME.csv in the order in which they were run."""
    return read_rows(RECORDS / f"{name}.csv")


def cifar100_lt() -> str:
    """MAP of each method beside the paper's LTHNet and the method's own published figures."""
    bits = [f"{length} bits" for length in CODE_LENGTHS]
    header = ["IF", "method", *bits, "published", "epochs", "train", "seeds", "GPU"]
    lines = []
    for factor in ("100", "50", "1"):
        paper = published.CIFAR100_LT["lthnet"][factor]
        figures = [f"{paper[length]:.4f}" for length in CODE_LENGTHS]
        lines.append([factor, "the paper's LTHNet, ResNet-34", *figures, *["-"] * 5])
        for method, label, cells in _long_tail_rows(factor):
            known = published.CIFAR100_LT.get(method, {}).get(factor)
            rows = [row for cell in cells for row in cell]
            after = "+ " if method == "ours" else ""  # what stage 1 takes comes before
            seconds = statistics.mean(float(row["train_seconds"]) for row in rows)
            counts = [str(len(cell)) for cell in cells if cell]
            lines.append(
                [
                    factor,
                    label,
                    *(mean_and_deviation(cell, "map") + _mark(cell) for cell in cells),
                    " ".join(f"{known[length]:.4f}" for length in CODE_LENGTHS) if known else "-",
                    after + _distinct(row["num_epochs"] for row in rows),
                    f"{after}{seconds:.0f} s",
                    counts[0] if len(set(counts)) == 1 else " ".join(counts),
                    _distinct(row["gpu"] for row in rows),
                ]
            )
    return _markdown(header, lines)


def cifar100_lt_groups() -> str:
    """MAP of the queries of many-, medium- and few-shot classes, means over seeds."""
    bits = [f"{length} bits: many, medium, few" for length in CODE_LENGTHS]
    lines = []
    for factor in ("100", "50"):
        for _, label, cells in _long_tail_rows(factor):
            groups = [
                " ".join(mean(cell, name) for name in GROUPS) + _mark(cell) if cell else "-"
                for cell in cells
            ]
            lines.append([factor, label, *groups])
    return _markdown(["IF", "method", *bits], lines)


def cifar100_lt_significance() -> str:
    """Differences of MAPs on the same queries, from benchmarks.significance, a line a pair."""
    found = {
        (row["imbalance_factor"], row["method"], row["against"], int(row["code_length"])): row
        for row in read_records("significance")
        if row["dataset"] == "Cifar100_LT"
    }
    bits = [f"{length} bits" for length in CODE_LENGTHS]
    lines = []
    for factor, method, against in dict.fromkeys(cell[:3] for cell in found):
        rows = [found.get((factor, method, against, length)) for length in CODE_LENGTHS]
        label = f"{LONG_TAIL[method]} - {LONG_TAIL[against]}"
        lines.append([factor, label, *(_difference(row) if row else "-" for row in rows)])
    return _markdown(["IF", "difference of MAP", *bits], lines)


def _difference(row: Row) -> str:
    """The difference with its interval, p where the interval holds 0, and how many seeds."""
    difference, low, high = (float(row[name]) for name in ("difference", "low", "high"))
    factor = row["imbalance_factor"]
    mark = _earlier(row["method"], factor, row["recipe"])
    mark = mark or _earlier(row["against"], factor, row["against_recipe"])
    p_value = f", p = {float(row['p_value']):.2g}" if low <= 0 <= high else ""
    seeds = "1 seed" if row["seeds"] == "1" else f"{row['seeds']} seeds"
    return f"{difference:+.4f} ({low:+.4f} to {high:+.4f}{p_value}), {seeds}{mark}"


def _mark(cell: list[Row]) -> str:
    """† at the figures of a cell that its config of today would not give."""
    if not cell:
        return ""
    return _earlier(cell[0]["method"], cell[0]["imbalance_factor"], cell[0]["recipe"])


def _earlier(method: str, factor: str, recipe: str) -> str:
    return EARLIER if recipe != current_recipe(factor, method) else ""


def _long_tail_rows(factor: str) -> Iterator[tuple[str, str, list[list[Row]]]]:
    """Each recorded method at an imbalance factor: its name, label, and rows by code length."""
    cells = by_cell(read_records("cifar100_lt"), current_recipe)
    for method, label in LONG_TAIL.items():
        found = [cells.get((factor, method, length), []) for length in CODE_LENGTHS]
        if any(found):
            yield method, label, found


def cifar10() -> str:
    """CIFAR-10, a line a config with all its code lengths; a seed run again counts once."""
    found: dict[str, dict[int, list[Row]]] = {}
    for row in read_records("cifar10"):
        config = row["config"].removeprefix("config/").removesuffix(".py")
        found.setdefault(config, {}).setdefault(int(row["code_length"]), []).append(row)
    lines = [
        "| method | network or features | bits | MAP | in database order | published | "
        "training images | seeds | GPU |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for config, (label, known) in CIFAR10.items():
        lengths = sorted(found.get(config, {}))
        if not lengths:
            continue
        rows = [one_recipe(found[config][q]) for q in lengths]
        first = rows[0][0]
        ordered = any(row["map_index_order"] for row in rows[0])
        cells = [
            label,
            first["backbone"],
            " ".join(map(str, lengths)),
            " ".join(mean(each, "map") for each in rows),
            " ".join(mean(each, "map_index_order") for each in rows) if ordered else "-",
            " ".join(f"{known[q]:.4f}" if q in known else "-" for q in lengths) if known else "-",
            f"{int(first['train_images']):,}",
            str(len(rows[0])),
            first["gpu"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def digits_lt() -> str:
    """The digits' methods, a column a seed; a seed run again counts once, its last."""
    records = read_records("digits_lt")
    seeds = sorted({row["seed"] for row in records})
    lines = [f"| method | {' | '.join(f'seed {seed}' for seed in seeds)} | mean |"]
    lines.append("|---" * (len(seeds) + 2) + "|")
    labels = {**SHALLOW, **DEEP, **STAGES}
    for method, label in labels.items():
        rows = one_recipe([row for row in records if row["method"] == method])
        by_seed = {row["seed"]: float(row["map"]) for row in rows}
        mean = statistics.mean(by_seed.values())
        figures = [f"{by_seed[seed]:.4f}" if seed in by_seed else "-" for seed in seeds]
        lines.append(f"| {label} | {' | '.join(figures)} | {mean:.4f} |")
    return "\n".join(lines)


def speed() -> str:
    """What was measured by benchmarks/training.py; every ratio is of one run."""
    lines = [
        "| measure | network | batch | step | value | against | ratio | target | commit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in read_records("speed"):
        ratio = f"{float(row['ratio']):.3g}" if row["ratio"] else ""
        against = f"{row['against']}: {_figure(row['against_value'])}" if row["against"] else ""
        gpus = "" if row["gpus"] == "1" else f", {row['gpus']} GPUs"
        cells = [
            row["measure"].replace("_", " ") + gpus,
            row["backbone"],
            row["batch_size"],
            row["accelerate"],
            f"{_figure(row['value'])} {row['unit']}",
            against,
            ratio,
            row["target"],
            row["commit"][:7],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "cifar100_lt": cifar100_lt,
    "cifar100_lt_groups": cifar100_lt_groups,
    "cifar100_lt_significance": cifar100_lt_significance,
    "cifar10": cifar10,
    "digits_lt": digits_lt,
    "speed": speed,
}


def fill(text: str, names: list[str]) -> str:
    """Put the named tables in their places in a page's text.

    Raises:
        ValueError: if the page has no place for one.
    """
    for name in names:
        start, end = f"<!-- table: {name} -->", "<!-- end -->"
        pattern = re.compile(f"({re.escape(start)}\n).*?({re.escape(end)})", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"the page has no place '{start}' ... '{end}'")
        table = TABLES[name]()
        text = pattern.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)  # type: ignore[misc]
    return text


def _figure(text: str) -> str:
    value = float(text)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _distinct(values: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(values))


def _markdown(header: list[str], lines: list[list[str]]) -> str:
    rows = [f"| {' | '.join(cells)} |" for cells in (header, *lines)]
    return "\n".join([rows[0], "|---" * len(header) + "|", *rows[1:]])


if __name__ == "__main__":
    for page, names in PAGES.items():
        write_text(page, fill(page.read_text(encoding="utf-8"), names))
