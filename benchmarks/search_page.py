"""The page under many clients: `python -m benchmarks.search_page --checkpoint MODEL`.

Starts the page on an index of made-up codes; each client posts a picture, waits for the answer and
posts another one, no two of them the same for as long as pictures last. The clients run on the
same cores. Some answers' codes are compared with those that `search.query`'s coder gives.
"""

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search_page_server import (
    RunningPage,
    busy_seconds,
    made_jpegs,
    make_index,
    record,
    running_page,
)
from search.coder import Coder, code_picture
from utils.errors import UserError
from utils.parser import OneLineParser

K = 10
COMPARED = 100  # pictures whose codes are compared


@dataclass
class Load:
    """What the clients saw.

    Attributes:
        seconds: from picture to answer, of each.
        errors: what was no right answer.
        codes: hexadecimal, by the picture's number.
    """

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    codes: dict[int, str] = field(default_factory=dict)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; the exit status is 1 when an answer was wrong, 2 for wrong usage."""
    options = _options(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder:
            coder, figures = measure(options, Path(folder))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    record(options.record, coder, options.items, options.clients, figures)
    return 1 if figures["errors"][0] or figures["codes_wrong"][0] else 0


def measure(options: argparse.Namespace, folder: Path) -> tuple[Coder, dict[str, Any]]:
    """The model, and the figures with their units.

    Raises:
        UserError: there is no such model.
    """
    pictures = made_jpegs(options.pictures)
    coder = make_index(folder, options.checkpoint, options.items)
    with running_page(folder / "index") as page:
        before = (page.processor_seconds(), time.process_time(), busy_seconds())
        load = asyncio.run(run_clients(page, pictures, options.clients, options.seconds))
        after = (page.processor_seconds(), time.process_time(), busy_seconds())
        memory = page.peak_memory()
    page_used, own, all_used = (
        (late - early) / options.seconds for early, late in zip(before, after, strict=True)
    )
    for error in load.errors[:5]:
        print(error, file=sys.stderr)
    times = np.array(load.seconds) * 1e3
    p50, p95, p99 = np.percentile(times, [50, 95, 99]).round(1)
    return coder, {
        "run": (options.seconds, "s"),
        "picture": (sum(map(len, pictures)) // len(pictures), "bytes"),
        "requests": (len(times), ""),
        "errors": (len(load.errors), ""),
        "codes_compared": (min(COMPARED, len(load.codes)), ""),
        "codes_wrong": (count_wrong(coder, pictures, load, folder), ""),
        "p50": (p50, "ms"),
        "p95": (p95, "ms"),
        "p99": (p99, "ms"),
        "rate": (round(len(times) / options.seconds, 1), "pictures/s"),
        "cores_of_the_page": (round(page_used, 2), ""),
        "cores_of_the_clients": (round(own, 2), ""),
        "cores_of_others": (round(all_used - page_used - own, 2), ""),
        "peak_memory": (memory, "MiB"),
    }


async def run_clients(
    page: RunningPage, pictures: list[bytes], clients: int, seconds: float
) -> Load:
    """Let clients ask for as long."""
    load, numbers = Load(), itertools.count()
    end = time.perf_counter() + seconds
    await asyncio.gather(*(_client(page, pictures, numbers, end, load) for _ in range(clients)))
    return load


async def _client(
    page: RunningPage, pictures: list[bytes], numbers: Iterator[int], end: float, load: Load
) -> None:
    reader, writer = await asyncio.open_connection(page.host, page.port)
    while time.perf_counter() < end:
        number = next(numbers) % len(pictures)
        started = time.perf_counter()
        status, body = await post(reader, writer, page, pictures[number])
        load.seconds.append(time.perf_counter() - started)
        if status != 200:
            load.errors.append(f"{status} {body[:200]!r}")
            continue
        found = json.loads(body)
        if len(found["sides"][0]["items"]) != K:
            load.errors.append(f"picture {number}: {body[:200]!r}")
        load.codes[number] = found["query"]["code"]
    writer.close()


async def post(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, page: RunningPage, picture: bytes
) -> tuple[int, bytes]:
    """Status and body of the answer to a picture."""
    head = (
        f"POST /api/search?k={K} HTTP/1.1\r\nHost: {page.host}:{page.port}\r\n"
        f"Content-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
    )
    writer.write(head.encode() + picture)
    await writer.drain()
    answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(answer.split("content-length: ")[1].split("\r\n")[0])
    return int(answer.split(" ", 2)[1]), await reader.readexactly(length)


def count_wrong(coder: Coder, pictures: list[bytes], load: Load, folder: Path) -> int:
    """Of the first pictures' codes, how many the coder gives otherwise."""
    wrong, path = 0, folder / "picture"
    for number in sorted(load.codes)[:COMPARED]:
        path.write_bytes(pictures[number])
        wrong += code_picture(coder, path).tobytes().hex() != load.codes[number]
    return wrong


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="python -m benchmarks.search_page", description=__doc__)
    parser.add_argument("--checkpoint", required=True, metavar="MODEL")
    parser.add_argument("--items", type=int, default=60_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pictures", type=int, default=1000, help="different ones")
    parser.add_argument("--record", metavar="FILE", help="a csv file to add a row to")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
