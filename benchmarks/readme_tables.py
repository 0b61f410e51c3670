"""Regenerate tables of the README and of docs/ from logs/records.

`python -m benchmarks.readme_tables`. Each table stands between two comments,
`<!-- table: NAME -->` and `<!-- end -->`.
"""

import csv
import re
import statistics
from collections.abc import Callable
from pathlib import Path

from benchmarks import published
from utils.atomic_file import write_text

PROJECT = Path(__file__).resolve().parent.parent
RECORDS = PROJECT / "logs" / "records"
PAGES = {
    PROJECT / "README.md": ["cifar100_lt", "cifar10", "digits_lt"],
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

Row = dict[str, str]


def read_records(name: str) -> list[Row]:
    """Rows of logs/records/NAME.csv in the order in which they were run."""
    with (RECORDS / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def cifar100_lt() -> str:
    """CIFAR-100 at 64 bits beside the published figures; a seed run again counts once, its last."""
    latest: dict[tuple[str, str], dict[str, Row]] = {}
    labels = {**DEEP, **STAGES}
    for row in read_records("cifar100_lt"):
        if row["code_length"] == "64" and row["method"] in labels:
            latest.setdefault((row["imbalance_factor"], row["method"]), {})[row["seed"]] = row
    lines = [
        "| IF | method | published | MAP | many | medium | few | training images | epochs "
        "| train | seeds | GPU |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for factor in published.LTHNET:
        for method, label in labels.items():
            rows = list(latest.get((factor, method), {}).values())
            if rows:
                known = published.CIFAR100_LT.get(method, {}).get(factor)
                cells = [
                    factor,
                    label,
                    f"{known:.4f}" if known else "-",
                    *(_mean(rows, name) for name in ("map", "map_many", "map_medium", "map_few")),
                    f"{int(rows[0]['train_images']):,}",
                    rows[0]["num_epochs"],
                    f"{statistics.mean(float(row['train_seconds']) for row in rows):.0f} s",
                    str(len(rows)),
                    rows[0]["gpu"],
                ]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cifar10() -> str:
    """CIFAR-10, a line a config with all its code lengths; a seed run again counts once."""
    latest: dict[str, dict[int, dict[str, Row]]] = {}
    for row in read_records("cifar10"):
        config = row["config"].removeprefix("config/").removesuffix(".py")
        by_seed = latest.setdefault(config, {}).setdefault(int(row["code_length"]), {})
        by_seed[row["seed"]] = row
    lines = [
        "| method | network or features | bits | MAP | in database order | published | "
        "training images | seeds | GPU |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for config, (label, known) in CIFAR10.items():
        lengths = sorted(latest.get(config, {}))
        if not lengths:
            continue
        rows = [list(latest[config][q].values()) for q in lengths]
        first = rows[0][0]
        ordered = any(row["map_index_order"] for row in rows[0])
        cells = [
            label,
            first["backbone"],
            " ".join(map(str, lengths)),
            " ".join(_mean(each, "map") for each in rows),
            " ".join(_mean(each, "map_index_order") for each in rows) if ordered else "-",
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
        by_seed = {row["seed"]: float(row["map"]) for row in records if row["method"] == method}
        mean = statistics.mean(by_seed.values())
        figures = [f"{by_seed[seed]:.4f}" for seed in seeds]
        lines.append(f"| {label} | {' | '.join(figures)} | {mean:.4f} |")
    return "\n".join(lines)


def speed() -> str:
    """What was measured on one machine in one run, by benchmarks/training.py."""
    lines = [
        "| measure | network | batch | step | value | against | ratio | target |",
        "|---|---|---|---|---|---|---|---|",
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
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "cifar100_lt": cifar100_lt,
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


def _mean(rows: list[Row], name: str) -> str:
    values = [float(row[name]) for row in rows if row[name]]
    return f"{statistics.mean(values):.4f}" if values else "-"


if __name__ == "__main__":
    for page, names in PAGES.items():
        write_text(page, fill(page.read_text(encoding="utf-8"), names))
