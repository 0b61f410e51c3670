"""Faults that must cost a line of text, not a run: `python -m benchmarks.faults [--only kills]`.

Mutated configs, checkpoint files and images, and runs that are killed: each kind is tried in a
process of its own, whose death or delay is a failure too. Seeds are fixed; a failure's line says
how to try it again.
"""

import argparse
import datetime
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.fault_findings import Finding, find
from benchmarks.rows import append_row
from utils.environment import commit
from utils.errors import UserError
from utils.parser import OneLineParser

COUNTS = {"mutated_configs": 1000, "mutated_checkpoints": 500, "mutated_images": 300, "kills": 100}
SHOWN = 20  # failures of a kind that are printed


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; the exit status is 1 after any failure, 2 for wrong usage."""
    options = _options(arguments)
    deadline = time.monotonic() + options.time_limit
    findings = []
    try:
        _check(options)
        for name in options.only:
            left = deadline - time.monotonic()
            finding = find(f"benchmarks.{name}", getattr(options, name), options.seed, left)
            findings.append(finding)
            for failure in finding.failures[:SHOWN]:
                print(f"{name}: {failure}", file=sys.stderr, flush=True)
            if options.record:
                append_row(options.record, _row(finding, options.seed))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(findings))
    return 1 if any(finding.failures for finding in findings) else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="python -m benchmarks.faults", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=list(COUNTS), default=list(COUNTS), help="kinds of faults")
    for name, count in COUNTS.items():
        add(f"--{name}", type=int, default=count, metavar="COUNT", help=f"[{count}]")
    add("--seed", type=int, default=0, help="of all that is drawn [0]")
    add("--time_limit", type=float, default=1800, metavar="SECONDS", help="of all kinds [1800]")
    add("--record", type=Path, metavar="CSV", help="add a row a kind, e.g. logs/records/faults.csv")
    return parser.parse_args(arguments)


def _check(options: argparse.Namespace) -> None:
    for name in COUNTS:
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}, expected 1 or more")
    if not options.time_limit > 0:
        raise UserError(f"--time_limit is {options.time_limit}, expected seconds above 0")


def table(findings: list[Finding]) -> str:
    """The findings as text, a line each."""
    lines = [f"{'faults':<20}{'tried':>7}{'failures':>10}{'seconds':>9}  figures"]
    for each in findings:
        lines.append(
            f"{each.name:<20}{each.tried:>7}{len(each.failures):>10}{each.seconds:>9.1f}  "
            f"{_figures(each)}".rstrip()
        )
    return "\n".join(lines)


def _row(finding: Finding, seed: int) -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "faults": finding.name,
        "tried": finding.tried,
        "failures": len(finding.failures),
        "seconds": round(finding.seconds, 1),
        "figures": _figures(finding),
        "seed": seed,
        "cpu": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit(),
    }


def _figures(finding: Finding) -> str:
    shown = {
        name: f"{value:.6g}" if isinstance(value, float) else value
        for name, value in finding.figures.items()
    }
    return "; ".join(f"{name} {value}" for name, value in shown.items())


if __name__ == "__main__":
    sys.exit(main())
