"""Code image files: `python -m engine.encode --checkpoint MODEL IMAGES... -o codes.npz`.

MODEL is a published folder, a run's folder or a checkpoint; the codes are those that the run's own
test gives the same images. No labels are needed. retrieval/image_codes.py reads the file.

An image that cannot be read is passed over, and named at the end. What is done is kept beside the
output until that is whole: the same command goes on where it was interrupted. It also brings
codes up to date: only files that are new, or have another size or time, are coded.
"""

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.faults import shown
from engine.coder import encode_files, made_with
from engine.codes_file import SUFFIX, CodesFile
from engine.coding import coding_block
from engine.coding_options import OPTIONS, add_coding_options, coding_options
from engine.config import load_config
from engine.image_list import ImageFiles, list_images
from engine.open_model import Model, open_model
from utils.command import exit_status
from utils.errors import UserError
from utils.log import start_logging
from utils.parser import OneLineParser
from utils.stop_signals import SIGNALS, Stopped

EXAMPLES = """\
examples:
  python -m engine.encode --checkpoint published/digits my_images/ -o codes.npz
  python -m engine.encode --checkpoint logs/Image_Folder/64bits_seed0/stage_1 \\
      my_images/query my_images/database -o codes.npz --device cpu
  python -m engine.encode --checkpoint lthnet.pt --list files.txt -o codes.npz \\
      --config config/Cifar100_LT/lthnet_published_checkpoint.py \\
      --opts training_opt.code_length=64

Names of the images of one folder are paths in it, those of several are paths as given.
Exit status: 0 done; 1 done, but for images that cannot be read (each is named); 2 a mistake in
command or model (one line says which); 130 after SIGINT, 143 after SIGTERM.
"""
LEAST = 256  # images coded before the first are kept
PART_SECONDS = 10.0  # about what an interruption costs


def encode(arguments: argparse.Namespace) -> int:
    """Do what the command line asks for; returns the exit status.

    Raises:
        UserError: for any mistake of the user's.
        Stopped: by a signal; what is done is kept.
    """
    path = Path(arguments.output)
    if path.suffix != SUFFIX:
        raise UserError(f"--output {path}: expected a name that ends in {SUFFIX}")
    config = load_config(arguments.config, arguments.opts) if arguments.config else None
    files = list_images(arguments.images, arguments.list)
    options = coding_options(arguments, *OPTIONS)
    model = open_model(arguments.checkpoint, config, options)
    length = _code_length(model, arguments.code_length)
    output = CodesFile(path, length, model.digest, _made_with(model, files))
    with output.opened():
        names = output.missing(files)
        kept = len(files.rows) - len(names)
        started = time.perf_counter()
        with SIGNALS.deferred():  # until a batch is done, so that those who read end in good order
            unreadable = _encode(model, files, names, output, length)
        seconds = time.perf_counter() - started
        count = output.finish(files)
    taken = f", {kept} of them kept from before" if kept else ""
    rate = f"{len(names)} images in {seconds:.1f} s, {len(names) / max(seconds, 1e-9):.0f} images/s"
    found = f"{count} codes of {length} bits{taken}" if count else "not written, for want of codes"
    print(f"{path}: {found}; {rate}")
    problems = [f"image {shown(files.path(name))}: {why}" for name, why in files.unusable.items()]
    problems += unreadable.values()
    for problem in problems:
        print(f"not coded: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _encode(
    model: Model, files: ImageFiles, names: list[str], output: CodesFile, length: int
) -> dict[str, str]:
    """Code the named files part by part, and keep each part; returns name → why not."""
    unreadable: dict[str, str] = {}
    block = coding_block(model.run)
    size, start = block * -(-LEAST // block), 0
    total = len(files.rows)
    # disable=None: a bar on a terminal only
    with tqdm(total=total, initial=total - len(names), unit="image", disable=None) as bar:
        while start < len(names):
            began = time.perf_counter()
            part = names[start : start + size]
            tick = partial(_advance, bar, total - len(names) + start + len(part))
            codes, reasons = encode_files(model, files.root, part, tick)
            rows = [row for row, name in enumerate(part) if name not in reasons]
            output.keep(files, [part[row] for row in rows], codes[length][rows])
            unreadable |= reasons
            start += len(part)
            seconds = time.perf_counter() - began
            if seconds < PART_SECONDS / 2:
                size *= 2
            elif seconds > PART_SECONDS * 2 and size > block:
                size = block * max(1, size // block // 2)
    return unreadable


def _advance(bar: tqdm, end: int, count: int) -> None:
    """Move the bar on, but not beyond the end of a part, whose last batch is filled up.

    Raises:
        Stopped: if a signal has come.
    """
    bar.update(min(count, end - bar.n))
    if SIGNALS.number:
        raise Stopped(SIGNALS.number)


def _code_length(model: Model, asked: int | None) -> int:
    lengths = model.run.config.training_opt.code_lengths
    if asked is None and len(lengths) == 1:
        return lengths[0]
    if asked not in lengths:
        found = ", ".join(map(str, lengths))
        raise UserError(f"--code_length is {asked}, but the model gives codes of {found} bits")
    return asked


def _made_with(model: Model, files: ImageFiles) -> dict[str, Any]:
    """What decides a code beside the model and the file's name."""
    root = hashlib.sha256(os.fsencode(files.root.resolve())).hexdigest()
    return {**made_with(model.run), "folder": root[:16]}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exits with status 2 on wrong usage."""
    parser = OneLineParser(
        prog="python -m engine.encode",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("images", nargs="*", metavar="IMAGES", help="folders and image files")
    parser.add_argument("--list", action="append", default=[], metavar="FILE",
                        help="a text file with the path of an image in each line")  # fmt: skip
    parser.add_argument("--checkpoint", required=True, metavar="MODEL",
                        help="published folder, run's folder, or checkpoint")  # fmt: skip
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the codes, .npz")
    parser.add_argument("--code_length", type=int, metavar="BITS",
                        help="which, of a model of several code lengths")  # fmt: skip
    add_coding_options(parser, *OPTIONS)
    parser.add_argument("--config", metavar="FILE", help="for weights that come without a config")
    parser.add_argument("--opts", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="override values of --config")  # fmt: skip
    found = parser.parse_args(arguments)
    if not found.images and not found.list:
        parser.error("no images; name folders or files, or give --list")
    if found.opts and not found.config:
        parser.error("--opts are of --config, which is not given")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see EXAMPLES for its exit status."""
    parsed = parse_arguments(arguments)
    start_logging()
    return exit_status(lambda: encode(parsed), "the same command goes on from here")


if __name__ == "__main__":
    sys.exit(main())
