"""A page to search an index with pictures: `python -m search.page INDEX [SECOND_INDEX]`.

It shows the nearest images of a picture that is dropped, pasted or picked, with their distances
and classes; of two indexes side by side; and MAP along the sizes of the classes.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from utils.cores import use_available_cores
from utils.errors import UserError
from utils.log import start_logging
from utils.parser import OneLineParser
from utils.stop_signals import SIGNALS, Stopped

EXAMPLES = """\
examples:
  python -m search.page my_index
  python -m search.page index_64_bits index_16_bits
  python -m search.page my_index --host 0.0.0.0 --port 8080 --allow_host search.example.org

docs/search_page.md says more.
Exit status: 0 ended by Ctrl-C or SIGTERM; 2 a mistake (one line says which).
"""
LARGEST_UPLOAD = 1024  # MiB
PACKAGES = ("fastapi", "starlette", "uvicorn", "faiss", "pyarrow", "lancedb")


def show(arguments: argparse.Namespace) -> None:
    """Serve the page until a signal ends it.

    Raises:
        UserError: for any mistake of the user's.
    """
    if not 1 <= arguments.max_megabytes <= LARGEST_UPLOAD:
        raise UserError(
            f"--max_megabytes is {arguments.max_megabytes}, expected 1 to {LARGEST_UPLOAD}"
        )
    try:
        from search.page_server import address, bind, make_server, serve
        from search.page_state import Page
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        raise UserError(
            f"the page needs the package {error.name}: pip install -r requirements-search.txt"
        ) from None
    with bind(arguments.host, arguments.port) as listener:
        places = [arguments.index, *([arguments.second] if arguments.second else [])]
        checkpoints, also = arguments.checkpoint or [], arguments.also or []
        with Page(places, checkpoints, also, arguments.max_megabytes << 20) as page:
            for shown in page.shown:
                if shown.no_coder:
                    print(f"{shown.side.name}: {shown.no_coder}", file=sys.stderr)
            what = " and ".join(f"{each.side.name}, {len(each.side.index):,} images of "
                                f"{each.side.index.coding.code_length} bits"
                                for each in page.shown)  # fmt: skip
            server = make_server(page, [*(arguments.allow_host or []), arguments.host])
            print(f"{address(listener)} shows {what}; Ctrl-C ends it", flush=True)
            serve(server, listener)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exits with status 2 on wrong usage."""
    parser = OneLineParser(
        prog="python -m search.page",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("index", metavar="INDEX", help="the index's folder or URI")
    parser.add_argument("second", nargs="?", metavar="SECOND_INDEX", help="to compare with")
    parser.add_argument("--host", default="127.0.0.1", help="to listen on [%(default)s]")
    parser.add_argument("--port", type=int, default=8020, help="0: any free one [%(default)s]")
    parser.add_argument("--allow_host", action="append", metavar="NAME",
                        help="that browsers may call the page by")  # fmt: skip
    parser.add_argument("--checkpoint", action="append", metavar="MODEL",
                        help="where the index's model lies now; twice for two")  # fmt: skip
    parser.add_argument("--also", action="append", metavar="FOLDER",
                        help="show pictures that lie there, too")  # fmt: skip
    parser.add_argument("--max_megabytes", type=int, default=20, metavar="N",
                        help="of a picture that is uploaded [%(default)s]")  # fmt: skip
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see EXAMPLES for its exit status."""
    parsed = parse_arguments(arguments)
    start_logging().setLevel(logging.WARNING)  # what was loaded is no news here
    use_available_cores()
    try:
        with SIGNALS.handled():
            show(parsed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Stopped:  # before it served
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
