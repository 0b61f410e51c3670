"""Compare runs: `python -m benchmarks.compare RUN RUN … [--out FOLDER]`.

Prints a row a run, from its metrics.json, and writes one report.html that sets their codes side by
side, each tested against the first on the same queries.
"""

import json
import sys
from pathlib import Path
from typing import Any

from retrieval.codes import load_codes
from retrieval.metrics import GROUPS
from retrieval.report import write_report
from utils.errors import UserError
from utils.parser import OneLineParser

READ_KEYS = (
    "dataset", "protocol", "method", "code_length", "imbalance_factor", "map", "map_interval_95",
    "map_at_k", "groups", "seconds",
)  # fmt: skip
COLUMNS = ("run", "method", "bits", "IF", "MAP", "95 %", "many", "medium", "few", "train s")


def read_metrics(run: Path) -> dict[str, Any]:
    """A run's metrics.json.

    Raises:
        UserError: if the folder has none, or it lacks what is compared.
    """
    try:
        values = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{run} has no readable metrics.json; train or test it first") from error
    if not isinstance(values, dict):
        raise UserError(f"{run / 'metrics.json'} holds no table of figures; test the run again")
    missing = [key for key in READ_KEYS if key not in values]
    groups = values.get("groups") or {}
    missing += [f"groups.{name}" for name in GROUPS if name not in groups]
    if missing:
        raise UserError(f"{run / 'metrics.json'} lacks {', '.join(missing)}; test the run again")
    return values


def table(metrics: dict[str, dict[str, Any]]) -> str:
    """A text table with a row a run; `metrics` are metrics.json's values by the run's name."""
    rows = [list(COLUMNS)]
    for name, values in metrics.items():
        low, high = values["map_interval_95"]
        factor = values["imbalance_factor"]
        groups = [values["groups"][group] for group in GROUPS]
        rows.append(
            [
                name,
                values["method"],
                str(values["code_length"]),
                "-" if factor is None else f"{factor:g}",
                f"{values['map']:.4f}",
                f"{low:.3f}-{high:.3f}",
                *("-" if value is None else f"{value:.4f}" for value in groups),
                f"{values['seconds']['train']:.1f}" if "train" in values["seconds"] else "-",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def main(arguments: list[str] | None = None) -> int:
    """The command line; exits with 2 on a user's mistake."""
    parser = OneLineParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders (a config's log_dir)")
    parser.add_argument("--out", type=Path, help="folder of report.html [the runs' parent]")
    options = parser.parse_args(arguments)
    try:
        metrics = {run.name: read_metrics(run) for run in options.runs}
        if len(metrics) < len(options.runs):
            raise UserError("two run folders have one name; compare folders of different names")
        folder = options.out or options.runs[0].resolve().parent
        top_k = [int(k) for k in next(iter(metrics.values()))["map_at_k"]]
        codes = {run.name: load_codes(run / "codes.npz") for run in options.runs}
        write_report(codes, folder, top_k=top_k)
    except (UserError, OSError) as error:  # OSError: a folder that cannot be written
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    first = next(iter(metrics.values()))
    print(f"\n{first['dataset']}, MAP@ALL, expected over ties; {first['protocol']}\n")
    print(table(metrics))
    print(f"\nside by side, with curves and tests: {folder / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
