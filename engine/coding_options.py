"""Options of the commands that code images, which stand in place of the model's own."""

import argparse
from functools import partial
from typing import Any

from utils.parser import whole_number

OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {  # training option, and what argparse is told
    "device": ("device", {"choices": ["auto", "cpu", "cuda"], "help": "[the model's, auto]"}),
    "precision": (
        "precision",
        {
            "choices": ["auto", "bf16", "fp32"],
            "help": "[the model's; auto: bf16 on a GPU] bf16 is up to three times as fast on a CPU "
            "that computes it, and turns bits that are nearly 0",
        },
    ),
    "batch_size": (
        "evaluation_batch_size",
        {
            "type": whole_number,
            "metavar": "IMAGES",
            "help": "[the model's] another may turn bits that are nearly 0",
        },
    ),
    "workers": (
        "num_workers",
        {
            "type": partial(whole_number, least=0),
            "metavar": "PROCESSES",
            "help": "that read images [the model's]",
        },
    ),
}


def add_coding_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add the named of OPTIONS to a command line, each as --NAME."""
    for name in names:
        parser.add_argument(f"--{name}", **OPTIONS[name][1])


def coding_options(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The training options for `engine.open_model` that a command line gives, of the named."""
    given = {OPTIONS[name][0]: getattr(arguments, name) for name in names}
    return {option: value for option, value in given.items() if value is not None}
