"""Whether methods' MAPs differ: `python -m benchmarks.significance RUN_A RUN_B [RUN_C ...]`.

Prints a line for each run but the first: the MAP of RUN_A minus the run's, a 95 % bootstrap
interval, and the p-value of a sign-flip test, over queries. A run is a folder with codes.npz, or a
file of its queries' precisions that --keep wrote: logs/records/precisions has those of the README's
rows. `{seed}` in a run's name stands for each of --seeds: a query's difference is then its mean
over seeds, since the same query asked again is no new query. Interval and p-value are those of
other queries asked of these trained networks; how far training again moves the difference, the
seeds show.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.precisions import (
    ABOUT,
    QUERIES,
    SEARCHED,
    Precisions,
    keep_precisions,
    read_precisions,
)
from benchmarks.rows import append_row
from retrieval.significance import PairedTest, paired_test
from utils.errors import UserError
from utils.parser import OneLineParser


def score(name: str, seeds: list[int]) -> list[Precisions]:
    """The runs that `name` stands for, one a seed.

    Raises:
        UserError: there is no such run, or it is of other queries than the first seed's.
    """
    paths = dict.fromkeys(Path(name.replace("{seed}", str(seed))) for seed in seeds)
    runs = [read_precisions(path) for path in paths]
    for run in runs:
        _check_same(run, runs[0], QUERIES)
        _check_one_method(run, runs[0])
    return runs


def compare(first: list[Precisions], second: list[Precisions]) -> tuple[PairedTest, list[float]]:
    """Test the MAP of `first` minus that of `second`; also gives the difference of each seed.

    Raises:
        UserError: the two have other numbers of seeds, or do not ask and search the same.
    """
    if len(first) != len(second):
        raise UserError(
            f"{first[0].name} comes with {len(first)} seeds and {second[0].name} with "
            f"{len(second)}; write {{seed}} in both names, or in none"
        )
    for ours, theirs in zip(first, second, strict=True):
        _check_same(theirs, ours, (*QUERIES, *SEARCHED))
    means = [np.mean([run.values for run in runs], 0) for runs in (second, first)]
    pairs = zip(first, second, strict=True)
    differences = [float((ours.values - theirs.values).mean()) for ours, theirs in pairs]
    return paired_test(*means), differences


def _check_one_method(run: Precisions, base: Precisions) -> None:
    for name in ABOUT:
        if name != "seed" and run.about.get(name) != base.about.get(name):
            raise UserError(
                f"{run.name} has {name} {run.about.get(name)}, {base.name} "
                f"{base.about.get(name)}; seeds of one method differ in nothing else"
            )


def _check_same(run: Precisions, base: Precisions, names: tuple[str, ...]) -> None:
    for name in names:
        if run.digests[name] != base.digests[name]:
            raise UserError(
                f"{run.name} and {base.name} differ in {name.replace('_', ' ')}; a paired test "
                "needs the same queries, database, class sizes and code length"
            )
    if len(run.values) != len(base.values):
        raise UserError(
            f"{run.name} has {len(run.values)} precisions, {base.name} {len(base.values)}; is one "
            "of the files damaged?"
        )


def _row(
    first: Precisions, second: Precisions, found: PairedTest, seeds: list[float]
) -> dict[str, Any]:
    """A row of a record, of the first seed's runs."""
    for run in (first, second):
        if not run.about:
            raise UserError(f"{run.name} has no metrics.json; test the run first")
    return {
        **{name: first.about[name] for name in ABOUT[:3]},
        "method": first.about["method"],
        "against": second.about["method"],
        "recipe": first.about["recipe"] or "",
        "against_recipe": second.about["recipe"] or "",
        "seeds": len(seeds),
        "queries": len(first.values),
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
    add("runs", nargs="+", metavar="RUN", help="a run's folder or file; {seed} is filled")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="what {seed} stands for")
    add("--record", type=Path, metavar="CSV", help="file to add a row a comparison to")
    add("--keep", type=Path, metavar="FOLDER", help="write each run's precisions there")
    options = parser.parse_args(arguments)
    try:
        if len(options.runs) < 2 and not options.keep:
            raise UserError("got one run, expected two or more to compare")
        first = _scored(options.runs[0], options)
        for name in options.runs[1:]:
            second = _scored(name, options)
            outcome = compare(first, second)
            print(line(options.runs[0], name, *outcome), flush=True)
            if options.record:
                append_row(options.record, _row(first[0], second[0], *outcome))
    except (UserError, OSError) as error:  # OSError: a place that cannot be written
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _scored(name: str, options: argparse.Namespace) -> list[Precisions]:
    """The runs of a name, kept if that is asked for."""
    runs = score(name, options.seeds)
    for run in runs if options.keep else []:
        print(f"kept {keep_precisions(run, options.keep)}", flush=True)
    return runs


if __name__ == "__main__":
    sys.exit(main())
