"""An index of codes on disk: `python -m search.index build` and others make and keep one."""

import argparse
import sys
from collections.abc import Sequence

from engine.coding_options import add_coding_options
from search.commands import CODING, add, build, compact, info, remove, verify
from search.opening import create_index, open_index
from search.store import KINDS, STORES
from utils.command import exit_status
from utils.cores import use_available_cores
from utils.log import start_logging
from utils.parser import OneLineParser

__all__ = ["create_index", "open_index"]

EXAMPLES = """\
examples:
  python -m search.index build logs/Digits_LT/if50_32bits_seed0/stage_1 -o my_index
  python -m search.index build --checkpoint published/my_model my_images/ -o my_index
  python -m search.index build codes.npz --checkpoint published/my_model -o my_index --kind ivf
  python -m search.index add my_index more_images/
  python -m search.index remove my_index --filter "path LIKE 'old/%'"
  python -m search.index info my_index
  python -m search.index verify my_index
  python -m search.index compact my_index

SOURCE is a codes.npz of a run or of engine.encode, a run's folder, what search.cluster wrote, or,
with a model to code them, folders and files of images. docs/search.md says more.
Exit status: 0 done; 1 faults found (verify), or images that cannot be read (each is named);
2 a mistake (one line says which); 130 after SIGINT, 143 after SIGTERM.
"""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exits with status 2 on wrong usage."""
    parser = OneLineParser(
        prog="python -m search.index",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for work in (build, add, remove, verify, info, compact):
        help_line = (work.__doc__ or "").splitlines()[0].split(";")[0]
        command = commands.add_parser(work.__name__, help=help_line, description=help_line)
        command.set_defaults(work=work)
        if work is not build:
            command.add_argument("index", metavar="INDEX", help="the index's folder or URI")
        if work in (build, add):
            _add_source_options(command)
        if work in (build, compact):
            command.add_argument("--kind", choices=KINDS, default="flat" if work is build else None,
                                 help="how codes are searched [flat: exactly]")  # fmt: skip
        if work is build:
            command.add_argument("-o", "--output", required=True, metavar="INDEX")
            command.add_argument("--store", choices=STORES, default=STORES[0], help="[%(default)s]")
            command.add_argument("--pictures", action="store_true",
                                 help="make files of a run's images in memory")  # fmt: skip
            command.add_argument("--code_length", type=int, metavar="BITS",
                                 help="which, of a model of several code lengths")  # fmt: skip
        if work is remove:
            which = command.add_mutually_exclusive_group(required=True)
            which.add_argument("--ids", nargs="+", type=int, metavar="ID")
            which.add_argument("--filter", metavar="CONDITION", help="such as \"label = 'cat'\"")
    return parser.parse_args(arguments)


def _add_source_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", nargs="+", metavar="SOURCE")
    command.add_argument("--checkpoint", metavar="MODEL",
                         help="the published folder, run or checkpoint of the codes")  # fmt: skip
    command.add_argument("--image_root", metavar="FOLDER",
                         help="that the names in a file of codes are relative to")  # fmt: skip
    add_coding_options(command, *CODING)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see EXAMPLES for its exit status."""
    parsed = parse_arguments(arguments)
    start_logging()
    use_available_cores()
    return exit_status(
        lambda: int(parsed.work(parsed)), "what was added stays, and add goes on from here"
    )


if __name__ == "__main__":
    sys.exit(main())
