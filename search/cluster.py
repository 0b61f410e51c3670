"""Code images on a Ray cluster: `python -m search.cluster IMAGES... --checkpoint MODEL -o codes`.

IMAGES are folders or files of images, Parquet files or a Lance data set that hold images, on one
machine, on storage that all machines share, or in a bucket (s3://...). The codes are those of
engine.encode, bit for bit. The output, a folder of Parquet files or, where its name ends in .lance,
a Lance data set, is a source of `python -m search.index build` and `add`.

A lost worker's images are coded by another; each is in the output once. The same command goes on
where it was interrupted, and codes only what is new or changed.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from data.faults import shown
from engine.coding import coding_block
from engine.coding_options import add_coding_options, coding_options
from engine.image_list import list_images
from search.cluster_output import LANCE, Stated
from search.cluster_parts import Codes
from search.cluster_sources import FileSource, ImageSource, ObjectSource
from search.cluster_storage import Storage
from search.cluster_tables import Columns, LanceSource, ParquetSource, table_source
from search.cluster_worker import Job, made_with_on
from search.coder import Coder
from utils.command import exit_status
from utils.errors import UserError
from utils.log import start_logging
from utils.parser import OneLineParser, whole_number

EXAMPLES = """\
examples:
  python -m search.cluster my_images/ --checkpoint published/my_model -o codes
  python -m search.cluster photos.parquet --checkpoint published/my_model -o codes.lance
  python -m search.cluster s3://bucket/photos.lance --id_column name --address auto \\
      --checkpoint /shared/published/my_model -o /shared/codes
  python -m search.index build codes -o my_index

docs/cluster.md says what every machine needs.
Exit status: 0 done; 1 done, but for images that cannot be read (each is named); 2 a mistake in
command, model or cluster (one line says which); 130 after SIGINT, 143 after SIGTERM.
"""
CODING = ("precision", "batch_size")  # of engine.coding_options; the device is the workers'
HERE = {"device": "cpu", "num_workers": 0}  # this process codes nothing itself
PARQUET = ".parquet"
SHARED_SECONDS = 60.0  # until a file of another machine is seen on this one
BLOCKS = {"cpu": 512, "cuda": 16384}  # images that a worker takes at once, and may lose
BLOCKS_A_WORKER = 4  # at least, lest one works alone at the end


def code(arguments: argparse.Namespace) -> int:
    """Do what the command line asks for; returns the exit status.

    Raises:
        UserError: for any mistake of the user's.
        Stopped: by a signal; what is done is kept.
    """
    ray = _ray()
    source = find_images(arguments)
    listing = source.listing()
    given = coding_options(arguments, *CODING)
    coder = Coder(arguments.checkpoint, arguments.code_length, {**given, **HERE})
    with ray.cluster(arguments.address):
        workers = ray.choose_workers(arguments.device, arguments.replicas)
        made = {**made_with_on(coder.model.run, workers.device), "source": source.place}
        stated = Stated(coder.coding(source.root), made)
        output = _absolute(arguments.output)
        job = Job(coder.checkpoint, {**given, **workers.options}, source, output, stated)
        codes = Codes(output, stated)
        with codes.opened():
            missing = codes.missing(listing)
            size = min(
                BLOCKS[workers.device], -(-len(missing) // (BLOCKS_A_WORKER * workers.count))
            )
            size = _whole(arguments.block or size, coding_block(coder.model.run))
            blocks = _named_blocks(codes, source, listing.take(pa.array(missing)), missing, size)
            started = time.perf_counter()
            done = ray.code_blocks(job, blocks, workers) if len(missing) else iter(())
            unreadable = _follow(done, codes, len(listing), len(missing))
            seconds = time.perf_counter() - started
            count = codes.finish(listing)
    if count + len(unreadable) < len(listing):
        raise UserError(
            f"{len(listing) - count - len(unreadable)} images were coded, but their parts are not "
            "to be seen from here; the same command codes them again"
        )
    _say(arguments.output, count, len(listing) - len(missing), len(missing), seconds, workers)
    problems = [f"image {shown(name)}: {why}" for name, why in source.unusable.items()]
    problems += unreadable.values()
    for problem in problems:
        print(f"not coded: {problem}", file=sys.stderr)
    return 1 if problems else 0


def find_images(arguments: argparse.Namespace) -> ImageSource:
    """What the command line names as images.

    Raises:
        UserError: there is nothing like that, or a mixture.
    """
    given, kind = arguments.images, arguments.source
    alone = given[0] if len(given) == 1 else ""
    columns = Columns(
        arguments.image_column, arguments.id_column, arguments.label_column, arguments.split_column
    )
    if kind == "lance" or (kind is None and alone.rstrip("/").endswith(LANCE)):
        if not alone:
            raise UserError("give one Lance data set at a time")
        return table_source(LanceSource(_absolute(alone), columns), arguments.image_root)
    if kind == "parquet" or (kind is None and _are_parquet(given)):
        return table_source(ParquetSource(*_parquet_files(given), columns), arguments.image_root)
    if "://" in alone:
        return ObjectSource(alone)
    if any("://" in each for each in given):
        raise UserError("give one URI at a time, or folders and files without one")
    return FileSource(list_images(given))


def _are_parquet(given: Sequence[str]) -> bool:
    """Whether these are Parquet files, or one folder with such files."""
    if all(each.endswith(PARQUET) for each in given):
        return True
    return len(given) == 1 and bool(Storage(given[0]).names(PARQUET))


def _parquet_files(given: Sequence[str]) -> tuple[str, list[str]]:
    """The folder of Parquet files, and their names in it."""
    if len(given) == 1 and not given[0].endswith(PARQUET):
        storage = Storage(given[0])
        names = storage.names(PARQUET, recursive=True)
        if not names:
            raise UserError(f"{given[0]}: no file there whose name ends in {PARQUET}")
        return storage.place, names
    if len({each.rpartition("/")[0] for each in given}) > 1:
        raise UserError("give Parquet files of one folder, or their folder")
    folder = given[0].rpartition("/")[0] or "."
    absent = next((each for each in given if not Storage(folder).exists(Path(each).name)), None)
    if absent is not None:
        raise UserError(f"{shown(absent)}: no such file; give Parquet files, or their folder")
    return folder, [Path(each).name for each in given]


def _named_blocks(
    codes: Codes, source: ImageSource, todo: pa.Table, numbers: NDArray[np.int64], size: int
) -> Iterator[tuple[str, pa.Table]]:
    """Blocks of what is to be coded, under the names of their parts.

    numbers: of the images of `todo` in the listing.
    """
    start = 0
    for block in source.blocks(todo, size):
        yield codes.parts.name(block, int(numbers[start])), block
        start += len(block)


def _follow(done: Iterator[Any], codes: Codes, total: int, missing: int) -> dict[str, str]:
    """Show what workers have done; returns path → why of what they could not read.

    Raises:
        UserError: what they wrote is not where this machine looks for it.
    """
    unreadable: dict[str, str] = {}
    # disable=None: a bar on a terminal only
    with tqdm(total=total, initial=total - missing, unit="image", disable=None) as bar:
        for each in done:
            if not _appears(codes.parts.storage, each.part):
                raise UserError(
                    f"{each.worker} wrote {codes.parts.storage.where(each.part)}, which is not "
                    "there for this one; let --output be where all machines write to"
                )
            unreadable |= each.unreadable
            bar.update(each.images)
    return unreadable


def _appears(storage: Storage, name: str) -> bool:
    """Whether a file is there, at once or when a network file system has caught up."""
    end = time.monotonic() + SHARED_SECONDS
    while not storage.exists(name):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _say(output: str, count: int, kept: int, coded: int, seconds: float, workers: Any) -> None:
    taken = f", {kept} of them kept from before" if kept else ""
    found = f"{count} codes{taken}" if count else "not written, for want of codes"
    rate = f"{coded} images in {seconds:.1f} s, {coded / max(seconds, 1e-9):.0f} images/s"
    print(f"{output}: {found}; {rate}, by {workers.count} on {workers.device}")


def _whole(size: int, block: int) -> int:
    """So many images or a few more: the last batch of a worker's block is filled up."""
    return block * max(1, -(-size // block))


def _absolute(place: str) -> str:
    return place if "://" in place else str(Path(place).resolve())


def _ray() -> ModuleType:
    """The part of the job that needs Ray.

    Raises:
        UserError: it is not installed.
    """
    try:
        from search import cluster_ray  # two seconds to import
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        raise UserError(
            "search.cluster needs Ray; pip install -r requirements-cluster.txt, or code images "
            "with python -m engine.encode"
        ) from None
    return cluster_ray


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exits with status 2 on wrong usage."""
    parser = OneLineParser(
        prog="python -m search.cluster",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGES", help="folders, files, a data set, or a URI")
    add("--checkpoint", required=True, metavar="MODEL",
        help="published folder, run's folder, or checkpoint")  # fmt: skip
    add("-o", "--output", required=True, metavar="PLACE",
        help="folder of Parquet files, or Lance data set NAME.lance")  # fmt: skip
    add("--address", default=os.environ.get("RAY_ADDRESS") or "local", metavar="ADDRESS",
        help="of a running cluster, such as auto [local: start one here]")  # fmt: skip
    add("--replicas", type=whole_number, metavar="COUNT",
        help="copies of the model [one a GPU, else one a core]")  # fmt: skip
    add("--device", choices=["auto", "cpu", "cuda"], help="of the workers [what there is]")
    add("--code_length", type=int, metavar="BITS", help="which, of a model of several")
    add_coding_options(parser, *CODING)
    add("--block", type=whole_number, metavar="IMAGES",
        help="that a worker takes at once, and may lose [512, on GPUs 16384]")  # fmt: skip
    table = parser.add_argument_group("images in tables").add_argument
    table("--source", choices=["files", "parquet", "lance"], help="[by the names]")
    table("--image_column", metavar="NAME", help="of files' bytes or paths [image, img, ...]")
    table("--id_column", metavar="NAME", help="[path, id, name or file_name]")
    table("--label_column", metavar="NAME", help="[label, if there is one]")
    table("--split_column", metavar="NAME", help="[split, if there is one]")
    table("--image_root", default=".", metavar="FOLDER", help="of paths in a column [.]")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see EXAMPLES for its exit status."""
    parsed = parse_arguments(arguments)
    start_logging()
    return exit_status(lambda: code(parsed), "the same command goes on from here")


if __name__ == "__main__":
    sys.exit(main())
