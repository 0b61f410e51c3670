"""Hostile requests to the page: `python -m benchmarks.search_page_hostile --checkpoint MODEL`.

After each of them the page must still answer a search as it did before; and no answer may hold
what a file outside of the index says, though rows and a link in its image folder name it.
"""

import argparse
import socket
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.search_page_attacks import Attack, attacks
from benchmarks.search_page_server import RunningPage, make_index, record, running_page
from search.opening import open_index
from search.page_upload import MAX_BYTES
from search.rows import make_rows
from utils.errors import UserError
from utils.parser import OneLineParser

CANARY = b"canary-5e8c2f71"  # what must not come out
COLOUR = (201, 13, 177)  # of a picture that must not
PATIENCE = 20.0  # seconds for an answer
LINGER = 0.5


@dataclass
class Tally:
    """What came of the requests.

    Attributes:
        statuses: how often each; 0 for a connection that was closed without an answer.
        leaks, failures, wrong: requests whose answer held the canary or was a failure of the page,
            and those after which it did not answer rightly.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    leaks: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def main(arguments: list[str] | None = None) -> int:
    """Run the test; the exit status is 1 when something came out or broke."""
    parser = OneLineParser(prog="python -m benchmarks.search_page_hostile", description=__doc__)
    parser.add_argument("--checkpoint", required=True, metavar="MODEL")
    parser.add_argument("--items", type=int, default=60_000)
    parser.add_argument("--record", metavar="FILE", help="a csv file to add rows to")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        coder = make_index(folder, options.checkpoint, options.items)
        planted = plant(folder)
        with running_page(folder / "index") as page:
            tally = attack(page, folder / "canary.txt", planted)
            memory = page.peak_memory()
            tally.failures += [
                line for line in page.log.read_text().splitlines() if "Error" in line
            ]
    for kind in ("leaks", "failures", "wrong"):
        for line in getattr(tally, kind):
            print(f"{kind}: {line}")
    figures: dict[str, tuple[Any, str]] = {
        "hostile_requests": (sum(tally.statuses.values()), ""),
        "hostile_leaks": (len(tally.leaks), ""),
        "hostile_crashes": (len(tally.failures) + len(tally.wrong), ""),
        "hostile_peak_memory": (memory, "MiB"),
    }
    print(dict(sorted(tally.statuses.items())))
    record(options.record, coder, options.items, 1, figures)
    return 1 if tally.leaks or tally.failures or tally.wrong else 0


def plant(folder: Path) -> list[int]:
    """Files outside of the index, and images of it that lead there; returns their ids."""
    (folder / "canary.txt").write_bytes(CANARY)
    Image.new("RGB", (40, 40), COLOUR).save(folder / "canary.png")
    (folder / "images" / "link.png").symlink_to(folder / "canary.png")
    (folder / "images" / "linked").symlink_to(folder, target_is_directory=True)
    paths = ["../canary.png", "link.png", "linked/canary.png", "../canary.txt",
             "train/../../canary.png", "linked", "../../../../../../etc/passwd"]  # fmt: skip
    index = open_index(folder / "index")
    codes = np.zeros((len(paths), index.coding.code_bytes), np.uint8)
    ids = index.add(codes, make_rows(len(paths), path=paths, label=["0"] * len(paths)))
    return [int(each) for each in ids]


def attack(page: RunningPage, canary: Path, planted: list[int]) -> Tally:
    """Send everything, one after another."""
    host, tally = f"{page.host}:{page.port}", Tally()
    usual = f"GET /api/search?id=1&k=5 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    question = Attack("usual", usual.encode())
    right = _items(send(page, question))
    assert right, "the page does not answer at all"
    pictures = [
        Attack(f"picture of {item}", usual.replace("/api/search?id=1&k=5", address).encode())
        for item in planted
        for address in (f"/picture/0/{item}", f"/picture/0/{item}?size=large")
    ]
    for each in [*pictures, *attacks(host, str(canary), MAX_BYTES)]:
        answer = send(page, each)
        status = _status(answer)
        tally.statuses[status] += 1
        head = answer.partition(b"\r\n\r\n")[0]
        shown = each in pictures and status != 404
        if CANARY in answer or b"root:" in answer or shown:
            tally.leaks.append(f"{each.name}: {answer[:200]!r}")
        if status >= 500 or (status and b"nosniff" not in head and status != 400):
            tally.failures.append(f"{each.name}: {answer[:200]!r}")
        if _items(send(page, question)) != right:
            tally.wrong.append(each.name)
    return tally


def send(page: RunningPage, each: Attack) -> bytes:
    """The whole answer; empty for none."""
    found = b""
    with socket.create_connection((page.host, page.port), PATIENCE) as connection:
        with suppress(OSError):  # where it was refused before all was sent
            connection.sendall(each.content)
        if each.lingers:
            connection.settimeout(LINGER)
        with suppress(OSError):
            while part := connection.recv(1 << 16):
                found += part
    return found


def _status(answer: bytes) -> int:
    parts = answer.split(b" ", 2)
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0


def _items(answer: bytes) -> bytes:
    """The images of an answer, without the time that it took."""
    return answer.partition(b'"items"')[2]


if __name__ == "__main__":
    sys.exit(main())
