"""Search an index with pictures: `python -m search.query INDEX PICTURE... -k 10`.

Prints the nearest images of each picture, and draws them beside it with --grid.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.source import read_image
from retrieval.grid import retrieval_grid
from search.coder import Coder, code_picture, picture_path, query_coder
from search.opening import open_index
from search.store import Hits, Index, Packed
from utils.cores import use_available_cores
from utils.errors import UserError
from utils.log import start_logging
from utils.parser import OneLineParser

EXAMPLES = """\
examples:
  python -m search.query my_index cat.jpg
  python -m search.query my_index cat.jpg dog.jpg -k 20 --grid nearest.png
  python -m search.query my_index cat.jpg --filter "label = 'cat' AND width >= 64"

Images at equal distances come in the order of their ids, and those that another image's distance
equals are marked '='.
Exit status: 0 done; 2 a mistake (one line says which).
"""
PICTURE = 256  # pixels a side, at most, of a picture in the grid
NAME = 60  # characters of a path in the table


def query(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: for any mistake of the user's.
    """
    index = open_index(arguments.index)
    pictures = [Path(each) for each in arguments.pictures]
    coder = query_coder(index.coding, arguments.checkpoint)
    codes, coding_ms = _code(coder, pictures)
    started = time.perf_counter()
    hits = index.search(
        codes, arguments.k, arguments.filter, model_digest=coder.digest,
        effort=arguments.effort, exact=arguments.exact,
    )  # fmt: skip
    search_ms = (time.perf_counter() - started) * 1e3
    rows = [index.rows(ids[ids >= 0]).to_pylist() for ids in hits.ids]
    for number, picture in enumerate(pictures):
        print(f"{picture}: coded in {coding_ms[number]:.0f} ms")
        _print_table(rows[number], hits.distances[number])
    print(f"{len(index)} codes searched for {len(pictures)} in {search_ms:.1f} ms")
    if arguments.grid:
        draw(index, pictures, hits, rows, Path(arguments.grid))
        print(arguments.grid)


def draw(
    index: Index, pictures: Sequence[Path], hits: Hits, rows: list[list[dict[str, Any]]], path: Path
) -> None:
    """Write the picture of queries and their nearest images.

    A frame is green where the label is that of the nearest image, red where it is another: a
    query has none of its own. An image that is not there is a grey square.
    """
    shown = max(1, max(len(each) for each in rows))
    blank = np.full((8, 8, 3), 220, np.uint8)
    same = np.zeros((len(pictures), shown), bool)
    results, captions = [], []
    for number, found in enumerate(rows):
        images = [_pixels(picture_path(index, row["path"])) for row in found]
        missing = shown - len(found)
        results.append([blank if image is None else image for image in images] + [blank] * missing)
        captions.append([row["label"] or str(row["id"]) for row in found] + [""] * missing)
        same[number, : len(found)] = [row["label"] == found[0]["label"] for row in found]
    retrieval_grid(
        [read_small(picture) for picture in pictures],
        results,
        same,
        path,
        distances=hits.distances[:, :shown],
        query_captions=[picture.name for picture in pictures],
        result_captions=captions,
        title="Query, then its nearest images; green: labelled as the nearest",
    )


def read_small(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Pixels of a picture, made small.

    Raises:
        UserError: it cannot be read.
    """
    image = read_image(path)
    image.thumbnail((PICTURE, PICTURE), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _pixels(path: Path | None) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
    try:
        return None if path is None else read_small(path)
    except UserError:
        return None


def _code(coder: Coder, pictures: Sequence[Path]) -> tuple[Packed, list[float]]:
    """Codes of pictures and the milliseconds of each, once the networks are warm."""
    code_picture(coder, pictures[0])
    codes, times = [], []
    for picture in pictures:
        started = time.perf_counter()
        codes.append(code_picture(coder, picture))
        times.append((time.perf_counter() - started) * 1e3)
    return np.concatenate(codes), times


def _print_table(rows: list[dict[str, Any]], distances: np.ndarray[Any, np.dtype[Any]]) -> None:
    print(f"{'rank':>4} {'distance':>8}   {'id':>9}  {'label':<20} {'size':>11}  path")
    for rank, row in enumerate(rows):
        beside = [at for at in (rank - 1, rank + 1) if 0 <= at < len(rows)]
        tied = "=" if any(distances[at] == distances[rank] for at in beside) else " "
        size = f"{row['width']}x{row['height']}" if row["width"] else ""
        path = row["path"] or ""
        path = path if len(path) <= NAME else "…" + path[1 - NAME :]
        label = row["label"] or ""
        print(f"{rank + 1:>4} {distances[rank]:>8} {tied} {row['id']:>9}  {label[:20]:<20} "
              f"{size:>11}  {path}")  # fmt: skip


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exits with status 2 on wrong usage."""
    parser = OneLineParser(
        prog="python -m search.query",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("index", metavar="INDEX", help="the index's folder or URI")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="image files")
    parser.add_argument("-k", type=int, default=10, metavar="K", help="images each [%(default)s]")
    parser.add_argument("--filter", metavar="CONDITION", help="such as \"label = 'cat'\"")
    parser.add_argument("--grid", metavar="FILE", help="picture to draw: png, svg or pdf")
    parser.add_argument("--checkpoint", metavar="MODEL",
                        help="where the index's model lies now")  # fmt: skip
    parser.add_argument("--effort", type=int, metavar="N",
                        help="lists probed, candidates kept or bits flipped")  # fmt: skip
    parser.add_argument("--exact", action="store_true", help="scan, whatever structure there is")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see EXAMPLES for its exit status."""
    parsed = parse_arguments(arguments)
    start_logging()
    use_available_cores()
    try:
        query(parsed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
