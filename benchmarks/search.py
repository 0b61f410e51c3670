"""How fast and how complete the search is: `python -m benchmarks.search --record FILE`.

Made-up codes go into an index, which is searched by a scan and by each structure with more and
more effort; beside them, in the same run, FAISS's flat scan and LanceDB's. A result counts as
found when it is no farther than the 10th of the exact search, since ties are many and which of
them come is no matter of completeness. The scan is compared with a plain oracle first.

Clustered codes are signs of 1.35 * m + G x: m ~ N(0, 1) for each class and bit, G 64 unit vectors
and x ~ N(0, 1) in 5 dimensions, so that bits are dependent; 1,000 classes, the largest with 100
times the images of the smallest. With 59,000 codes of 10 classes these numbers give what SDH's
64-bit codes of CIFAR-10 show: bits differ from their class's in 0.2 of the images, the 10th
nearest is at 3.4, and 0.86 of the codes are distinct (SDH: 0.20, 3.4, 0.78). Uniform codes, where
nothing is near, are every structure's worst case.
"""

import argparse
import datetime
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from benchmarks.evaluation import cpu_name
from benchmarks.rows import append_row
from search.coder import QUERY_OPTIONS, Coder, code_picture
from search.opening import create_index, open_index
from search.rows import make_rows
from search.store import Coding, Hits, Index, Packed
from utils.cores import use_available_cores
from utils.environment import commit
from utils.errors import UserError
from utils.parser import OneLineParser

BITS, CLASSES, IMBALANCE, LATENT, MARGIN = 64, 1000, 100, 5, 1.35
K = 10
ADDED = 10_000
CHUNK = 1 << 20
EFFORTS = {
    "ivf": (1, 2, 4, 8, 16, 32, 64, 128),
    "hnsw": (16, 32, 64, 128, 256, 512),
    "mih": (0, 1, 2, 3),
}
SINGLE, BATCH, SLOW = 200, 1000, 20  # queries one at a time, at once, and of a slow method
REPEATS = 3

Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; the exit status is 1 when the scan is wrong, 2 for wrong usage."""
    options = _options(arguments)
    use_available_cores()
    base = {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "codes": options.codes,
        "items": options.items,
    }
    try:
        for found in measure(options):
            row = {**base, **found}
            print(", ".join(str(value) for value in found.values() if value != ""), flush=True)
            if options.record:
                append_row(Path(options.record), row)
            if found["measure"] == "equals_oracle" and not found["value"]:
                return 1
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def measure_coding(checkpoint: str, pictures: list[str]) -> Iterator[Row]:
    """Milliseconds to code a picture on the CPU, file to bits, once the networks are warm."""
    coder = Coder(checkpoint, options=QUERY_OPTIONS)
    backbone = coder.model.run.config.networks["feat_model"]
    times = []
    for path in map(Path, [pictures[0], *pictures]):
        started = time.perf_counter()
        code_picture(coder, path)
        times.append((time.perf_counter() - started) * 1e3)
    name = str(backbone.params.get("arch", backbone.def_file))
    yield figure("code_picture_median", name, float(np.median(times[1:])), "ms")
    yield figure("code_picture_longest", name, max(times[1:]), "ms")


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Rows of figures, as they come."""
    if options.checkpoint:
        yield from measure_coding(options.checkpoint, options.pictures)
        return
    draw = Clustered() if options.codes == "clustered" else draw_uniform
    rng = np.random.default_rng(0)
    codes, query, added = (draw(n, rng) for n in (options.items, BATCH, ADDED * (REPEATS + 1)))
    yield figure("equals_oracle", "scan", float(equals_oracle(draw, rng)), "of 1 million codes")
    with ExitStack() as stack:
        folder = Path(options.indexes or stack.enter_context(tempfile.TemporaryDirectory()))
        places = {
            name: folder / f"{options.codes}_{options.items}_{name}"
            for name in ("flat", *options.kinds, *options.stores)
        }
        for name, place in places.items():
            if not place.exists():
                yield from build(name, place, codes, added)
        flat = open_index(places["flat"])
        exact = flat.search(query, K)
        yield from measure_search("scan", "", partial(flat.search, k=K), query, exact)
        yield from measure_faiss_flat(codes, query, exact)
        for kind in options.kinds:
            yield from measure_kind(kind, open_index(places[kind]), query, exact)
        for store in options.stores:
            yield from measure_slow(store, open_index(places[store]), query[:SLOW], exact)


def build(name: str, place: Path, codes: Packed, added: Packed) -> Iterator[Row]:
    """Make an index of a kind or in a store; of a scan, also open it, add to it and compact it."""
    store, kind = ("lance", "flat") if name == "lance" else ("faiss", name)
    index = create_index(place, Coding(BITS), store, kind)
    started = time.perf_counter()
    index.add(codes, made_rows(0, len(codes)))
    yield figure("fill", name, time.perf_counter() - started, "s")
    started = time.perf_counter()
    index.compact()
    yield figure("build", name, time.perf_counter() - started, "s")
    yield figure("bytes", name, index.info()["bytes"], "bytes")
    yield figure("open", name, best(lambda: open_index(place)), "s")
    if kind != "flat":
        return
    for number, some in enumerate(np.split(added, len(added) // ADDED)):
        rows = made_rows(len(codes) + number * ADDED, ADDED)
        started = time.perf_counter()
        index.add(some, rows)
        yield figure("add_10000", name, time.perf_counter() - started, "s")
    index.remove(np.arange(len(codes), len(codes) + len(added)))
    started = time.perf_counter()
    index.compact()
    yield figure("compact", name, time.perf_counter() - started, "s")


def measure_kind(kind: str, index: Index, query: Packed, exact: Hits) -> Iterator[Row]:
    """Search a structure with more and more effort."""
    started = time.perf_counter()
    index.search(query[:1], K)
    yield figure("first_search", kind, time.perf_counter() - started, "s")
    for effort in EFFORTS[kind]:
        search = partial(index.search, k=K, effort=effort)
        yield from measure_search(kind, effort, search, query, exact)


def measure_slow(store: str, index: Index, query: Packed, exact: Hits) -> Iterator[Row]:
    """The other store's scan, by a few queries, whose answers must be the same."""
    truth = Hits(exact.ids[: len(query)], exact.distances[: len(query)])
    found = index.search(query, K)
    if (found.ids != truth.ids).any() or (found.distances != truth.distances).any():
        raise UserError(f"the stores differ on {len(index)} codes")
    yield from measure_search(store, "", partial(index.search, k=K), query, truth)


def measure_faiss_flat(codes: Packed, query: Packed, exact: Hits) -> Iterator[Row]:
    """FAISS's own scan."""
    faiss.omp_set_num_threads(torch.get_num_threads())
    flat = faiss.IndexBinaryFlat(BITS)
    flat.add(codes)

    def search(some: Packed) -> Hits:
        distances, ids = flat.search(some, K)
        return Hits(ids, distances)

    yield from measure_search("faiss_flat", "", search, query, exact)


def measure_search(
    method: str, effort: int | str, search: Callable[[Packed], Hits], query: Packed, exact: Hits
) -> Iterator[Row]:
    """Milliseconds a query, one at a time and all at once, and recall@10."""
    hits = search(query)
    near = (hits.distances >= 0) & (hits.distances <= exact.distances[:, -1:])
    recall = round(float(near.mean()), 5)
    batch = best(lambda: search(query)) / len(query)
    alone = query[:SINGLE]
    single = best(lambda: [search(one[None]) for one in alone]) / len(alone)
    for measure, seconds in (("search_batch", batch), ("search_single", single)):
        yield figure(measure, method, seconds * 1e3, "ms a query", effort, recall)


def figure(
    measure: str, method: str, value: float, unit: str, effort: int | str = "", recall: Any = ""
) -> Row:
    """A row of the record."""
    return {"measure": measure, "method": method, "effort": effort, "recall_at_10": recall,
            "value": float(f"{value:.5g}"), "unit": unit}  # fmt: skip


def best(work: Callable[[], Any]) -> float:
    """The shortest of some runs, in seconds; a long one is not repeated."""
    times: list[float] = []
    while len(times) < REPEATS and sum(times) < 20:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


class Clustered:
    """Draws codes as the head of this file says; queries and items are of the same classes."""

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        self.margins = rng.normal(0, MARGIN, (CLASSES, BITS)).astype(np.float32)
        vectors = rng.normal(size=(BITS, LATENT)).astype(np.float32)
        self.vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        sizes = IMBALANCE ** -np.linspace(0, 1, CLASSES)
        self.shares = sizes / sizes.sum()

    def __call__(self, count: int, rng: np.random.Generator) -> Packed:
        codes = np.empty((count, BITS // 8), np.uint8)
        for start in range(0, count, CHUNK):
            some = min(CHUNK, count - start)
            classes = rng.choice(CLASSES, some, p=self.shares)
            latent = rng.standard_normal((some, LATENT), np.float32)
            bits = self.margins[classes] + latent @ self.vectors.T > 0
            codes[start : start + some] = np.packbits(bits, axis=1, bitorder="little")
        return codes


def draw_uniform(count: int, rng: np.random.Generator) -> Packed:
    """Codes of random bits."""
    return rng.integers(0, 256, (count, BITS // 8), dtype=np.uint8)


def made_rows(first: int, count: int) -> pa.Table:
    """Rows with paths and labels, made without a loop."""
    numbers = pa.array(np.arange(first, first + count))
    text = pc.cast(numbers, pa.string())
    paths = pc.binary_join_element_wise("train/images/", text, ".jpg", "")
    label = pc.cast(pa.array(np.arange(first, first + count) % CLASSES), pa.string())
    size = np.full(count, 224, np.int32)
    split = pa.array(["database"]).take(pa.array(np.zeros(count, np.int32)))
    return make_rows(count, path=paths, label=label, split=split, width=size, height=size)


def equals_oracle(draw: Callable[..., Packed], rng: np.random.Generator) -> bool:
    """Whether an index of a million codes answers as XOR, popcount and a full sort do."""
    codes, query = draw(10**6, rng), draw(20, rng)
    with tempfile.TemporaryDirectory() as folder:
        index = create_index(Path(folder) / "index", Coding(BITS))
        for some in np.array_split(codes, 3):
            index.add(some, make_rows(len(some)))
        hits = index.search(query, 1000)
    for row, code in enumerate(query):
        distances = np.bitwise_count(code.view(np.uint64) ^ codes.view(np.uint64)[:, 0])
        order = np.lexsort((np.arange(len(codes)), distances))[:1000]
        same = (hits.ids[row] == order).all() and (hits.distances[row] == distances[order]).all()
        if not same:
            return False
    return True


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--codes", choices=["clustered", "uniform"], default="clustered")
    parser.add_argument("--kinds", nargs="*", choices=list(EFFORTS), default=list(EFFORTS))
    parser.add_argument("--stores", nargs="*", choices=["lance"], default=["lance"])
    parser.add_argument("--checkpoint", metavar="MODEL",
                        help="measure how fast it codes --pictures, and no more")  # fmt: skip
    parser.add_argument("--pictures", nargs="+", metavar="PICTURE")
    parser.add_argument("--indexes", metavar="FOLDER",
                        help="keeps the indexes; the next run takes them up")  # fmt: skip
    parser.add_argument("--record", help="CSV file to add rows to")
    found = parser.parse_args(arguments)
    if bool(found.checkpoint) != bool(found.pictures):
        parser.error("--checkpoint and --pictures go together")
    return found


if __name__ == "__main__":
    sys.exit(main())
