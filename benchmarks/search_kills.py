"""Kill a writer of an index again and again: `python -m benchmarks.search_kills [--kills 50]`.

A process adds, removes and compacts without pause and reports each write once its call has
returned; SIGKILL ends it at a random moment. What it reported must then be in the index, whole
and with the right codes; only the write under way may be there or not.
"""

import multiprocessing
import sys
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.opening import create_index, open_index
from search.rows import make_rows
from search.store import STORES, Coding
from utils.errors import UserError
from utils.parser import OneLineParser

CODE_LENGTH = 64
LARGEST = 3000  # items of an add
KEPT = 30_000  # items above which the writer removes more than it adds
LONGEST = 0.3  # seconds until the kill, once the first write is reported


def main(arguments: list[str] | None = None) -> int:
    """Run the test; the exit status is 1 when something was lost."""
    parser = OneLineParser(prog="python -m benchmarks.search_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--store", choices=STORES, default=STORES[0])
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        tally = kill_writers(Path(folder) / "index", options.kills, options.store)
    for fault in tally.faults:
        print(fault)
    print(f"{options.store}: {options.kills} kills, {tally.midway} of them within a write, among "
          f"{tally.writes} acknowledged writes; {len(tally.faults)} faults")  # fmt: skip
    return 1 if tally.faults else 0


@dataclass
class Tally:
    """What came of the kills.

    Attributes:
        writes: that were acknowledged.
        midway: kills that came between the begin of a write and its end.
        faults: what was lost or wrong.
    """

    writes: int = 0
    midway: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Write:
    """One write: the ids from `low` up to `high`, added or removed; done, or only begun."""

    kind: str
    low: int
    high: int
    done: bool


def kill_writers(folder: Path, kills: int, store: str = STORES[0]) -> Tally:
    """Kill a writer that many times, and look each time at what it leaves."""
    create_index(folder, Coding(CODE_LENGTH), store)
    rng, tally = np.random.default_rng(0), Tally()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, f"search.{store}_store"])
    expected: set[int] = set()
    for kill in range(kills):
        receiver, sender = context.Pipe(duplex=False)
        writer = context.Process(target=write_forever, args=(folder, kill, sender))
        writer.start()
        sender.close()
        reports = [receiver.recv()]
        time.sleep(rng.uniform(0, LONGEST))
        writer.kill()
        writer.join()
        reports += iter(lambda: _received(receiver), None)  # noqa: B023 - used up here
        begun = None if reports[-1].done else reports[-1]
        for write in reports:
            if write.done:
                expected = after(expected, write)
        tally.writes += sum(write.done for write in reports)
        tally.midway += begun is not None
        expected, faults = check(folder, expected, begun)
        tally.faults += [f"kill {kill}: {fault}" for fault in faults]
    return tally


def after(ids: set[int], write: Write) -> set[int]:
    """The ids that are there after a write."""
    touched = set(range(write.low, write.high))
    return ids | touched if write.kind == "add" else ids - touched


def check(folder: Path, expected: set[int], begun: Write | None) -> tuple[set[int], list[str]]:
    """The ids in the index, and what is wrong with them; `begun` may be there or not."""
    try:
        index = open_index(folder)
        ids, faults = index.select(), index.verify()
    except UserError as error:
        return expected, [str(error)]
    found = set(ids.tolist())
    if found not in [expected, *([after(expected, begun)] if begun else [])]:
        lost, risen = len(expected - found), len(found - expected)
        faults.append(f"{lost} acknowledged items lost, {risen} there that should not be")
    if (index.codes(ids) != code_of(ids)).any():
        faults.append("codes changed")
    if index.rows(ids)["path"].to_pylist() != [f"{item}.png" for item in ids]:
        faults.append("rows changed")
    return found, faults


def write_forever(folder: Path, seed: int, sender: Connection) -> None:
    """Write to the index until killed; each write is reported as it begins and when it is done."""
    rng = np.random.default_rng(seed)
    index: Any = open_index(folder)
    while True:
        low, held = index.info()["next_id"], index.select()
        kind = rng.choice(["add", "add", "add", "remove", "compact"])
        high = low + int(rng.integers(1, LARGEST))
        if kind == "remove" or (kind == "add" and len(held) > KEPT):
            kind, (low, high) = "remove", sorted(rng.integers(0, low + 1, 2).tolist())
        if kind == "compact":
            high = low
        sender.send(Write(kind, low, high, done=False))
        if kind == "add":
            ids = np.arange(low, high)
            index.add(code_of(ids), make_rows(len(ids), path=[f"{item}.png" for item in ids]))
        elif kind == "remove":
            index.remove(held[(held >= low) & (held < high)])
        else:
            index.compact()
        sender.send(Write(kind, low, high, done=True))


def code_of(ids: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The code that an item of that id has here: a mix of its bits (SplitMix64's last step)."""
    mixed = ids.astype(np.uint64) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    return np.ascontiguousarray(mixed * np.uint64(0x94D049BB133111EB)).view(np.uint8).reshape(-1, 8)


def _received(receiver: Connection) -> Write | None:
    try:
        return receiver.recv()
    except (EOFError, OSError):
        return None


if __name__ == "__main__":
    sys.exit(main())
