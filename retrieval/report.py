"""Score anybody's codes: `python -m retrieval.report codes.npz [other.npz …]`.

Writes a self-contained page, report.html, and metrics.json, and prints the table. What is read is
described in docs/evaluation.md.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrieval.codes import Codes
from retrieval.figures import Figures, draw
from retrieval.page import render_page
from retrieval.readers import read_codes
from retrieval.scored import Images, Scored, score_all
from retrieval.sections import page_facts, page_sections
from utils.atomic_file import write_json, write_text
from utils.errors import UserError
from utils.parser import OneLineParser
from utils.rgb_image import open_image, to_rgb

TOP_K = (100, 1000, 5000)


def write_report(
    codes: Codes | Mapping[str, Codes],
    out_dir: str | Path,
    images: Images | None = None,
    *,
    top_k: Sequence[int] = TOP_K,
    ties: str = "expected",
    radius: int = 2,
    content_overlap: bool = False,
    device: torch.device | str | None = None,
) -> dict[str, dict[str, Any]]:
    """Score codes and write `report.html` into `out_dir`.

    Args:
        codes: one set of codes, or several by name, compared against the first.
        out_dir: folder, made when missing.
        images: `images(side, index)` gives the picture of a 'query' or 'database' image as
            (height, width[, 3]); with it the page shows retrievals. All sets must then be of the
            same images.
        top_k: cutoffs K of the metrics within K.
        ties: the tie rule of the figures.
        radius: Hamming radius of the precision within a radius.
        content_overlap: compare queries and database by content too, which reads every image.
        device: where to compute; None is the CPU.

    Returns:
        Everything that the page says, by the name of the codes, ready for JSON.

    Raises:
        UserError: codes and labels do not fit together, or an option is unknown.
    """
    named = {codes.dataset or "codes": codes} if isinstance(codes, Codes) else dict(codes)
    if not named:
        raise UserError("got no codes, expected at least one set; give a codes.npz")
    compared = images if content_overlap else None
    scored = score_all(named, compared, tuple(top_k), ties, radius, device)
    write_page(scored, out_dir, draw(scored, images, device))
    return {name: found.to_dict() for name, found in scored.items()}


def write_page(scored: Mapping[str, Scored], out_dir: str | Path, figures: Figures) -> None:
    """Write `report.html` into `out_dir` from what `score_all` found and `draw` made of it."""
    title = next(iter(scored.values())).codes.dataset or "Retrieval"
    page = render_page(title, page_facts(scored), page_sections(scored, figures))
    write_text(Path(out_dir) / "report.html", page)


def main(arguments: list[str] | None = None) -> int:
    """The command line; the exit status is 0, or 2 for wrong usage or files."""
    parser = OneLineParser(prog="python -m retrieval.report", description=__doc__)
    parser.add_argument("codes", nargs="+", help="codes.npz, .mat, .csv, or a folder of .npy/.csv")
    parser.add_argument("--out", help="folder for report.html and metrics.json [the first file's]")
    parser.add_argument(
        "--ties", default="expected", help="expected, optimistic, pessimistic, index"
    )
    parser.add_argument("--top_k", type=int, nargs="+", default=list(TOP_K))
    parser.add_argument("--radius", type=int, default=2)
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER",
        help="where the names in the codes are image files: shows retrievals, compares content",
    )  # fmt: skip
    parser.add_argument("--device", help="cpu or cuda [cpu]")
    options = parser.parse_args(arguments)
    try:
        named = {name: read_codes(path) for name, path in name_files(options.codes).items()}
        first = Path(options.codes[0])
        folder = Path(options.out) if options.out else first if first.is_dir() else first.parent
        if folder.is_file():
            raise UserError(f"--out {folder} is a file; give a folder")
        images = named_images(next(iter(named.values())), options.images)
        metrics = write_report(
            named, folder, images, top_k=options.top_k, ties=options.ties, radius=options.radius,
            content_overlap=images is not None, device=options.device,
        )  # fmt: skip
        write_json(
            folder / "metrics.json", metrics if len(metrics) > 1 else next(iter(metrics.values()))
        )
    except (UserError, OSError) as error:  # OSError: a folder that cannot be written
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for name, found in metrics.items():
        print(summary_line(name, found))
    print(f"wrote {folder / 'report.html'} and {folder / 'metrics.json'}")
    return 0


def named_images(codes: Codes, folder: Path | None) -> Images | None:
    """Pictures by side and index, read from `folder` by the names that the codes hold.

    Raises:
        UserError: the codes hold no names; and, when asked for a picture, the file is unreadable.
    """
    if folder is None:
        return None
    names = {"query": codes.query_names, "database": codes.database_names}
    if names["query"] is None or names["database"] is None:
        raise UserError("--images: the codes hold no names; store query_names and database_names")

    def images(side: str, index: int) -> np.ndarray[Any, np.dtype[Any]]:
        path = folder / str(names[side][index])  # type: ignore[index]
        try:
            with open_image(path) as image:
                return np.asarray(to_rgb(image))
        except Exception as error:  # Pillow's are of many kinds, for broken files
            reason = " ".join(str(error).split())
            raise UserError(
                f"--images: {path} cannot be read ({reason}); give the names' folder"
            ) from error

    return images


def name_files(paths: Sequence[str]) -> dict[str, str]:
    """A short name for each file: its own, with its folder's where that alone is not enough."""
    stems = [Path(path).stem for path in paths]
    names = stems if len(set(stems)) == len(stems) else [_with_folder(path) for path in paths]
    if len(set(names)) < len(names):
        names = [f"{index}: {name}" for index, name in enumerate(names, start=1)]
    return dict(zip(names, paths, strict=True))


def _with_folder(path: str) -> str:
    full = Path(path).resolve()
    return f"{full.parent.name}/{full.stem}"


def summary_line(name: str, found: Mapping[str, Any]) -> str:
    """One line with everything that a figure needs to be compared."""
    low, high = found["map_interval_95"]
    return (
        f"{name}: MAP@ALL {found['map']:.4f} (95% {low:.4f} to {high:.4f}), "
        f"{found['code_length']} bits, ties {found['ties']}, denominator relevant in all, "
        f"protocol {found['protocol'] or 'not stated'}"
    )


if __name__ == "__main__":
    sys.exit(main())
