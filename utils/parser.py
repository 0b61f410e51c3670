"""Command lines whose mistakes are one line."""

import argparse
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser that answers wrong usage with one line, and exits with status 2."""

    def error(self, message: str) -> NoReturn:
        """Print the message and where help is, without the usage, and exit."""
        self.exit(2, f"error: {' '.join(message.split())}; see {self.prog} --help\n")
