"""What an index costs as it grows: `python -m benchmarks.scale --folder FOLDER --record FILE`.

At each size made-up clustered codes of 64 bits (benchmarks.search says how they are drawn) with
made-up rows are added to an index in stretches, as `search.index build` does with what a cluster
job wrote; then it is merged, given its structure, opened, searched, added to, filtered and
verified. Each step runs in a process of its own, whose peaks of memory stand in its row: all that
was resident, where files that are mapped into memory count as far as they were read, though the
system may drop them, and what was the process's own. The project's imports alone are 700 and 350.

`--plan` measures what a cluster job does on one machine besides coding: it finds out what is
missing and brings the output up to date, with made-up parts in place of workers'. `--checkpoint`
measures how fast a model codes made-up JPEG files on this machine's CPU, from file to bits.
"""

import argparse
import datetime
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.evaluation import cpu_name
from benchmarks.jpegs import write_jpegs
from benchmarks.resident_images import create_source
from benchmarks.rows import append_row
from benchmarks.search import BITS, Clustered, best, draw_uniform, figure, made_rows, measure_search
from search.cluster_output import Stated
from search.cluster_parts import Codes
from search.cluster_sources import make_listing
from search.coder import Coder
from search.opening import create_index, open_index
from search.store import Coding, Hits, Packed
from utils.cores import use_available_cores
from utils.parser import OneLineParser

STRETCH = 1 << 22  # codes that are added at a time
QUERIES = 200
K = 10
EFFORTS = {"ivf": (16, 64, 128), "mih": (0, 1)}
PICTURES = 512
BLOCK = 16384  # images of a part

Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; the exit status is 2 for wrong usage."""
    options = _options(arguments)
    steps: list[tuple[int, Callable[[], list[Row]]]] = []
    if options.checkpoint:
        steps.append((PICTURES, partial(code_pictures, options.checkpoint)))
        options.items = []
    for items in options.items:
        place = Path(options.folder) / f"{options.codes}_{items}"
        if options.plan:
            steps += [(items, partial(step, place, items)) for step in (make_parts, plan)]
            continue
        common = (place, items, options.codes)
        steps += [(items, partial(step, *common)) for step in (fill, merge, scan_it)]
        for kind in options.kinds:
            steps += [(items, partial(step, *common, kind)) for step in (build, search_it)]
        steps += [(items, partial(step, *common)) for step in (add_to, look_up, verify)]
        steps.append((items, partial(_remove, place, options.keep)))
    for items, step in steps:
        load = os.getloadavg()[0]
        found, memory = _in_process(step)
        for row in found:
            said = {**row, **memory}
            print(items, ", ".join(str(each) for each in said.values() if each != ""), flush=True)
            if options.record:
                append_row(Path(options.record), {**_base(options.codes, items, load), **said})
    return 0


def fill(place: Path, items: int, codes: str) -> list[Row]:
    """Add all codes and rows; drawing them is not timed."""
    index, seconds = create_index(place, Coding(BITS)), 0.0
    for start in range(0, items, STRETCH):
        count = min(STRETCH, items - start)
        drawn, rows = _draw(codes, start, count), made_rows(start, count)
        started = time.perf_counter()
        index.add(drawn, rows)
        seconds += time.perf_counter() - started
    return [figure("fill", "flat", seconds, "s")]


def merge(place: Path, items: int, codes: str) -> list[Row]:
    """Make one segment of the stretches."""
    seconds = _timed(lambda: open_index(place).compact())
    files = [path for path in place.rglob("*") if path.is_file()]
    sizes = {path.name: path.stat().st_size for path in files}
    rows = [figure("merge", "flat", seconds, "s")]
    for name in ("codes.npy", "ids.npy", "rows.arrow"):
        rows.append(figure("bytes", name, sizes[name], "bytes"))
    return rows


def build(place: Path, items: int, codes: str, kind: str) -> list[Row]:
    """Build a structure, whose centres and tables all codes go through."""
    seconds = _timed(lambda: open_index(place).compact(kind))
    (path,) = place.rglob("*.faiss")
    return [
        figure("build", kind, seconds, "s"),
        figure("bytes", kind, path.stat().st_size, "bytes"),
    ]


def scan_it(place: Path, items: int, codes: str) -> list[Row]:
    """Search by a scan, and keep what it finds, which is exact."""
    index, query = open_index(place), _draw(codes, -1, QUERIES)
    opened = figure("open", "flat", best(lambda: open_index(place)), "s")
    index.search(query[:1], K)  # compiles, and reads what is not in memory
    exact = index.search(query, K)
    np.savez(place.with_suffix(".npz"), ids=exact.ids, distances=exact.distances)
    search = partial(index.search, k=K, exact=True)
    return [opened, *measure_search("scan", "", search, query, exact)]


def search_it(place: Path, items: int, codes: str, kind: str) -> list[Row]:
    """Search a structure with several efforts."""
    index, query = open_index(place), _draw(codes, -1, QUERIES)
    exact = Hits(**np.load(place.with_suffix(".npz")))
    rows = [figure("open", kind, best(lambda: open_index(place)), "s")]
    first = _timed(lambda: index.search(query[:1], K))
    rows.append(figure("first_search", kind, first, "s"))
    for effort in EFFORTS[kind]:
        search = partial(index.search, k=K, effort=effort)
        rows += measure_search(kind, effort, search, query, exact)
    return rows


def add_to(place: Path, items: int, codes: str) -> list[Row]:
    """Add 10,000 codes, three times."""
    rows = []
    for number in range(3):
        drawn, made = _draw(codes, items + number, 10_000), made_rows(items, 10_000)
        index = open_index(place)
        rows.append(figure("add_10000", "", _timed(partial(index.add, drawn, made)), "s"))
    return rows


def look_up(place: Path, items: int, codes: str) -> list[Row]:
    """Rows by id, and the first and the next searches under a filter."""
    index, query = open_index(place), _draw(codes, -1, 1)
    ids = np.random.default_rng(0).integers(0, items, 10)
    found = [figure("rows_of_10", "", best(lambda: index.rows(ids)) * 1e3, "ms")]
    for name, where in (("label", "label = '7'"), ("path", "path LIKE '%77.jpg'")):
        search = partial(index.search, query, K, where)
        found.append(figure("filter_first", name, _timed(search), "s"))
        found.append(figure("filter_again", name, best(search), "s"))
    return found


def verify(place: Path, items: int, codes: str) -> list[Row]:
    """Read everything."""
    faults: list[str] = []
    seconds = _timed(lambda: faults.extend(open_index(place).verify()))
    return [figure("verify", f"{len(faults)} faults", seconds, "s")]


def code_pictures(checkpoint: str) -> list[Row]:
    """Code JPEG files of the size of ImageNet's; processor time counts what other work slows."""
    with tempfile.TemporaryDirectory() as folder:
        source = create_source(Path(folder) / "none", PICTURES, 100)
        size = write_jpegs(Path(folder), source, PICTURES)
        names = [path.relative_to(folder).as_posix() for path in Path(folder).rglob("*.jpg")]
        coder = Coder(checkpoint, options={"device": "cpu", "num_workers": 0})
        backbone = coder.model.run.config.networks["feat_model"]
        coder.code(Path(folder), names[:32])
        started, used = time.perf_counter(), time.process_time()
        coder.code(Path(folder), names)
        seconds, busy = time.perf_counter() - started, time.process_time() - used
    name, count = str(backbone.params.get("arch", backbone.def_file)), len(names)
    return [
        figure("coding", name, count / seconds, "images/s"),
        figure("coding", name, count / busy, "images a processor second"),
        figure("jpeg_bytes", name, size, "bytes"),
    ]


def make_parts(place: Path, items: int) -> list[Row]:
    """Write parts as workers do."""
    codes, listing = _job(place), _listing(items)
    seconds = 0.0
    for start in range(0, items, BLOCK):
        block = listing.slice(start, BLOCK)
        drawn, rows = _draw("clustered", start, len(block)), made_rows(start, len(block))
        started = time.perf_counter()
        codes.parts.write(codes.parts.name(block, start), block, drawn, rows, {})
        seconds += time.perf_counter() - started
    return [figure("write_parts", "cluster", seconds, "s")]


def plan(place: Path, items: int) -> list[Row]:
    """Find out that nothing is missing, and merge the parts."""
    codes, listing = _job(place), _listing(items)
    missing = _timed(lambda: codes.missing(listing))
    finish = _timed(lambda: codes.finish(listing))
    again = _timed(lambda: codes.missing(listing))
    size = sum(path.stat().st_size for path in place.rglob("*.parquet"))
    shutil.rmtree(place)
    values = {"missing_of_parts": missing, "finish": finish, "missing_of_output": again}
    rows = [figure(name, "cluster", seconds, "s") for name, seconds in values.items()]
    return [*rows, figure("bytes", "cluster", size, "bytes")]


def _job(place: Path) -> Codes:
    return Codes(str(place), Stated(Coding(BITS), {}))


def _listing(items: int) -> pa.Table:
    numbers = np.random.default_rng(0).integers(0, 10**18, items)
    paths = pa.chunked_array([made_rows(0, items)["path"].combine_chunks()])
    return make_listing(paths, size=numbers, stamp=numbers)


def _draw(codes: str, seed: int, count: int) -> Packed:
    draw = Clustered() if codes == "clustered" else draw_uniform
    return draw(count, np.random.default_rng(seed + 10))


def _remove(place: Path, keep: bool) -> list[Row]:
    if not keep:
        shutil.rmtree(place)
        place.with_suffix(".npz").unlink()
    return []


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _in_process(step: Callable[[], list[Row]]) -> tuple[list[Row], Row]:
    """What a step gives in a process of its own, and that one's peaks of memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (step,))


def _measured(step: Callable[[], list[Row]]) -> tuple[list[Row], Row]:
    use_available_cores()
    own, ended = [0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(own, ended))
    watcher.start()
    found = step()
    ended.set()
    watcher.join()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found, {"resident_mib": resident // 1024, "own_mib": own[0] // 1024}


def _watch(own: list[int], ended: threading.Event) -> None:
    """Keep the most memory, in KiB, that was no file's."""
    last = False
    while not last:
        last = ended.wait(0.05)
        lines = Path("/proc/self/status").read_text().splitlines()
        (anonymous,) = [line for line in lines if line.startswith("RssAnon")]
        own[0] = max(own[0], int(anonymous.split()[1]))


def _base(codes: str, items: int, load: float) -> Row:
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "load": round(load, 1),
        "codes": codes,
        "items": items,
    }


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="python -m benchmarks.scale", description=__doc__)
    sizes = [10**6, 10**7, 10**8]
    parser.add_argument("--items", type=int, nargs="+", default=sizes, metavar="CODES")
    parser.add_argument("--codes", choices=["clustered", "uniform"], default="clustered")
    parser.add_argument("--kinds", nargs="*", choices=list(EFFORTS), default=["ivf"])
    parser.add_argument("--plan", action="store_true", help="measure a cluster job's own work")
    parser.add_argument("--checkpoint", metavar="MODEL", help="measure how fast it codes pictures")
    parser.add_argument("--folder", default=".", help="for the indexes, which are removed")
    parser.add_argument("--keep", action="store_true", help="the indexes")
    parser.add_argument("--record", help="CSV file to add rows to")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
