"""The command `python -m data.long_tail`: makes, prints, plots and writes a split."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data.content import writable_folder
from data.images import open_images
from data.manifest import manifest
from data.open_classes import hold_out_classes
from data.source import Source
from data.split import Split, make_split
from utils.atomic_file import atomic_path, write_json
from utils.def_file import call, load_function
from utils.errors import UserError
from utils.parser import OneLineParser

# OLTR's groups (Liu et al., CVPR 2019), by training images a class.
MANY_ABOVE = 100
FEW_BELOW = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 2 after a one-line message on a user's mistake."""
    options = _parser().parse_args(arguments)
    try:
        if options.plot:
            check_plot_format(options.plot)
        source, split = _make(options)
        value = manifest(source, split)
        for name in ("out", "plot"):
            if getattr(options, name):
                _check_target(name, Path(getattr(options, name)))
        print("\n".join(summary_lines(split, value)))
        if options.out:
            write_json(options.out, value)
            print(f"wrote {options.out}")
        if options.plot:
            plot_class_sizes(options.plot, value)
            print(f"wrote {options.plot}")
    except (UserError, OSError) as error:  # OSError: a disk that is full, say
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _check_target(name: str, path: Path) -> None:
    if path.is_dir() or writable_folder([path.parent]) is None:
        raise UserError(f"--{name} {path} cannot be written; give a file in a writable folder")


def summary_lines(split: Split, value: dict[str, Any]) -> list[str]:
    """Return a split's ranks, sizes, groups, roles and digest for printing."""
    classes = value["classes"]
    sizes = np.array([row["size"] for row in classes])
    shown = sorted({0, 1, 2, 4, 9, 19, 49, 99, 199, 499, len(classes) - 1})
    mu = "" if split.mu is None else f"; mu {split.mu:.4g}"
    lines = [
        f"{value['dataset']}: {split.protocol}{mu}; seed {split.seed}",
        "",
        " rank  images  class",
    ]
    lines += [
        f"{row['rank']:5d}  {row['size']:6d}  {row['name']}"
        for row in (classes[position] for position in shown if position < len(classes))
    ]
    many, few = sizes > MANY_ABOVE, sizes < FEW_BELOW
    lines += ["", " group   classes  images"]
    for name, group in (("many", many), ("medium", ~many & ~few), ("few", few)):
        lines.append(f" {name:<7} {group.sum():7d}  {sizes[group].sum():6d}")
    lines.append("")
    lines += [f"{role:>12}  {part['count']:7d}" for role, part in value["roles"].items()]
    return [*lines, "", f"digest {value['digest']}"]


def check_plot_format(path: str | Path) -> None:
    """Check that a plot can be written under this name.

    Raises:
        UserError: matplotlib is absent, or the file's suffix is no format that it writes.
    """
    try:
        from matplotlib.figure import Figure  # slow to import, and only the plot needs it
    except ImportError as error:
        raise UserError("--plot needs matplotlib; pip install matplotlib") from error

    formats = sorted(Figure().canvas.get_supported_filetypes())
    if Path(path).suffix.lower().removeprefix(".") not in formats:
        raise UserError(
            f"plot {path}: its suffix is none of {', '.join(formats)}; use a name such as curve.png"
        )


def plot_class_sizes(path: str | Path, value: dict[str, Any]) -> None:
    """Draw training images by class rank, on a log axis, over the many/medium/few regions.

    Raises:
        UserError: as `check_plot_format`.
    """
    check_plot_format(path)
    from matplotlib.figure import Figure

    sizes = [row["size"] for row in value["classes"]]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    bottom, top = max(min(sizes), 1) / 1.6, max(sizes) * 1.6
    axes.set_yscale("log")
    axes.set_ylim(bottom, top)
    axes.set_xlim(0.5, len(sizes) + 0.5)
    _draw_regions(axes, bottom, top)
    ranks = range(1, len(sizes) + 1)
    axes.bar(ranks, sizes, width=1.0, color="#3b6ea5", alpha=0.45)
    axes.step(ranks, sizes, where="mid", color="#1f4e80", linewidth=1.8)
    ticks = [digit * 10**power for power in range(7) for digit in (1, 2, 5)]
    axes.set_yticks([tick for tick in ticks if bottom <= tick <= top])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("class rank")
    axes.set_ylabel("training images (log scale)")
    axes.set_title(f"{value['dataset']}: {value['protocol'].split(';')[0]}, {sum(sizes):,} images")
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _draw_regions(axes: Any, bottom: float, top: float) -> None:
    regions = (
        (f"many-shot\n(> {MANY_ABOVE})", MANY_ABOVE, top, "#dcebf7"),
        (f"medium-shot\n({FEW_BELOW}-{MANY_ABOVE})", FEW_BELOW, MANY_ABOVE, "#eef3e2"),
        (f"few-shot\n(< {FEW_BELOW})", bottom, FEW_BELOW, "#fbe9dc"),
    )
    for name, low, high, colour in regions:
        low, high = max(low, bottom), min(high, top)
        if low < high:
            axes.axhspan(low, high, color=colour, zorder=0)
            place = {"transform": axes.get_yaxis_transform(), "va": "center"}
            axes.text(1.015, (low * high) ** 0.5, name, color="#555555", **place)


def _make(options: argparse.Namespace) -> tuple[Source, Split]:
    params = _params(options.params)
    create = load_function(options.source, "create_source", "source")
    source = call(create, params, {"data_root": options.data_root}, "params")
    if options.open_classes:
        source = hold_out_classes(source, options.open_classes, options.seed)
    split = make_split(
        source,
        imbalance_factor=options.imbalance_factor,
        n_max=options.n_max,
        mu=options.mu,
        seed=options.seed,
        queries_per_class=options.queries_per_class,
        validation_per_class=options.validation_per_class,
        digests=open_images(source).digests,
    )
    return source, split


def _params(text: str) -> dict[str, Any]:
    try:
        params = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(
            f"--params {text!r} is not YAML ({' '.join(str(error).split())})"
        ) from error
    if not isinstance(params, dict):
        raise UserError(f"--params {text!r}; expected a mapping such as '{{folder: Cifar100}}'")
    return params


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m data.long_tail",
        description="Make a long-tailed split of a dataset: print its class sizes, counts and"
        " digest, and on request write it and plot it. The class of rank r keeps"
        " floor(n_max * r^-mu) training images.",
        epilog="examples: python -m data.long_tail --source ./data/digits.py"
        " --imbalance_factor 10; python -m data.long_tail --source ./data/image_folder.py"
        " --data_root ./data --params '{folder: Cifar100}' --imbalance_factor 50"
        " --out split.json --plot curve.png",
    )
    add = parser.add_argument
    add("--source", required=True, metavar="FILE", help="a source file, such as ./data/digits.py")
    add("--params", default="{}", metavar="YAML", help="parameters of the source, as YAML")
    add(
        "--data_root",
        default=os.environ.get("LTH_DATA_ROOT", "data"),
        metavar="FOLDER",
        help="where the data lies (default: the environment variable LTH_DATA_ROOT, else data)",
    )
    add(
        "--imbalance_factor",
        type=float,
        metavar="IF",
        help="largest over smallest class; 1 is balanced; left out: the training set as it is",
    )
    add("--seed", type=int, default=0, help="draws the ranks and images (default: 0)")
    add("--n_max", type=int, help="images of the largest class (default: the smallest class has)")
    add("--mu", type=float, help="Zipf's exponent (default: the published one, else ln IF / ln C)")
    add("--queries_per_class", type=int, metavar="N", help="for sources without queries")
    add("--validation_per_class", type=int, default=10, metavar="N", help="at most (default: 10)")
    add("--open_classes", type=int, default=0, metavar="N", help="classes to make unknown")
    add("--out", metavar="FILE", help="write the split here, as JSON")
    add("--plot", metavar="FILE", help="write the class-size curve here, such as curve.png")
    return parser
