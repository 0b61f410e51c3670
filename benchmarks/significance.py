"""Whether methods' MAPs differ: `python -m benchmarks.significance RUN_A RUN_B [RUN_C ...]`.

Prints a line for each run but the first: the MAP of RUN_A minus the run's, a 95 % bootstrap
interval, and the p-value of a sign-flip test, over queries, from the runs' codes.npz. `{seed}` in a
folder's name stands for each of --seeds: a query's difference is then its mean over seeds, since
the same query asked again is no new query. Interval and p-value are those of other queries asked
of these trained networks; how far training again moves the difference, the seeds show.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compare import read_metrics
from benchmarks.rows import append_row
from retrieval.codes import Codes, load_codes
from retrieval.metrics import evaluate
from retrieval.significance import PairedTest, Scores, paired_test
from utils.errors import UserError
from utils.parser import OneLineParser

QUERIES = ("query_labels", "query_names")
SEARCHED = ("database_labels", "database_names", "train_class_counts", "code_length")


@dataclass(frozen=True)
class Scored:
    """One method's runs. precisions: each seed's average precisions, expected over ties."""

    folders: list[Path]
    codes: list[Codes]
    precisions: list[Scores]


def score(name: str, seeds: list[int]) -> Scored:
    """Score the codes of the folders that `name` stands for, one a seed.

    Raises:
        UserError: a folder has no codes, or they are of other queries than the first seed's.
    """
    folders = list(dict.fromkeys(Path(name.replace("{seed}", str(seed))) for seed in seeds))
    codes = [load_codes(folder / "codes.npz") for folder in folders]
    for folder, each in zip(folders, codes, strict=True):
        _check_same(each, codes[0], QUERIES, folder, folders[0])
    return Scored(folders, codes, [average_precisions(each) for each in codes])


def average_precisions(codes: Codes) -> Scores:
    """Each query's average precision over the whole database, expected over ties."""
    found = evaluate(
        codes.query_codes,
        codes.database_codes,
        codes.query_labels,
        codes.database_labels,
        code_length=codes.code_length,
        top_k=(),
    )
    return found.ap_per_query


def compare(first: Scored, second: Scored) -> tuple[PairedTest, list[float]]:
    """Test the MAP of `first` minus that of `second`; also gives the difference of each seed.

    Raises:
        UserError: the two have other numbers of seeds, or do not ask and search the same.
    """
    if len(first.codes) != len(second.codes):
        raise UserError(
            f"{first.folders[0]} comes with {len(first.codes)} seeds and {second.folders[0]} with "
            f"{len(second.codes)}; write {{seed}} in both names, or in none"
        )
    for number, codes in enumerate(second.codes):
        folders = second.folders[number], first.folders[number]
        _check_same(codes, first.codes[number], (*QUERIES, *SEARCHED), *folders)
    differences = [
        float((ours - theirs).mean())
        for ours, theirs in zip(first.precisions, second.precisions, strict=True)
    ]
    return paired_test(np.mean(second.precisions, 0), np.mean(first.precisions, 0)), differences


def _check_same(
    codes: Codes, base: Codes, names: tuple[str, ...], folder: Path, other: Path
) -> None:
    for name in names:
        if not np.array_equal(getattr(codes, name), getattr(base, name)):
            raise UserError(
                f"{folder} and {other} differ in {name.replace('_', ' ')}; a paired test needs the "
                "same queries, database, class sizes and code length"
            )


def _row(first: Scored, second: Scored, found: PairedTest, seeds: list[float]) -> dict[str, Any]:
    """A row of a record; what was run stands in each method's metrics.json."""
    metrics = [read_metrics(one.folders[0]) for one in (first, second)]
    return {
        **{name: metrics[0][name] for name in ("dataset", "imbalance_factor", "code_length")},
        "method": metrics[0]["method"],
        "against": metrics[1]["method"],
        "recipe": metrics[0].get("recipe", ""),
        "against_recipe": metrics[1].get("recipe", ""),
        "seeds": len(seeds),
        "queries": len(first.precisions[0]),
        "difference": f"{found.difference:.6g}",
        "low": f"{found.low:.6g}",
        "high": f"{found.high:.6g}",
        "p_value": f"{found.p_value:.3g}",
        "least_of_seeds": f"{min(seeds):.6g}",
        "greatest_of_seeds": f"{max(seeds):.6g}",
    }


def line(first: str, second: str, found: PairedTest, seeds: list[float]) -> str:
    """One comparison in words."""
    each = f"; by seed {' '.join(f'{value:+.4f}' for value in seeds)}" if len(seeds) > 1 else ""
    return (
        f"{first} - {second}: {found.difference:+.4f}, 95 % {found.low:+.4f} to {found.high:+.4f}, "
        f"p = {found.p_value:.2g}{each}"
    )


def main(arguments: list[str] | None = None) -> int:
    """The command line; exits with 2 on a user's mistake."""
    parser = OneLineParser(prog="python -m benchmarks.significance", description=__doc__)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="run folder (a config's log_dir); {seed} is filled")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="what {seed} stands for")
    add("--record", type=Path, metavar="CSV", help="file to add a row a comparison to")
    options = parser.parse_args(arguments)
    try:
        if len(options.runs) < 2:
            raise UserError("got one run, expected two or more to compare")
        first = score(options.runs[0], options.seeds)
        for name in options.runs[1:]:
            second = score(name, options.seeds)
            outcome = compare(first, second)
            print(line(options.runs[0], name, *outcome), flush=True)
            if options.record:
                append_row(options.record, _row(first, second, *outcome))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
