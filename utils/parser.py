"""Command lines whose mistakes are one line."""

import argparse
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser that answers wrong usage with one line, and exits with status 2."""

    def error(self, message: str) -> NoReturn:
        """Print the message and where help is, without the usage, and exit."""
        self.exit(2, f"error: {' '.join(message.split())}; see {self.prog} --help\n")


def whole_number(text: str, least: int = 1) -> int:
    """A whole number of an argument, from `least` up.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least} up, not {text!r}")
    return int(text)
