"""How fast retrieval evaluation is: `python -m benchmarks.evaluation [--device cuda]`.

Scores made-up codes with every metric but the bootstrap and the paired test, and beside it, in the
same run, the loop that published code uses: per query a float matrix product, an argsort and a
cumulative precision. Correctness is checked first.
"""

import argparse
import datetime
import platform
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.rows import append_row
from benchmarks.timing import best_time, copy_bandwidth
from retrieval.hamming import Pairing, count_pairing, pair_up, pick_kernel
from retrieval.metrics import Evaluation, evaluate
from utils.errors import UserError
from utils.parser import OneLineParser

CLASSES = 100
LOOP_QUERIES = {"cpu": 100, "cuda": 500}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; the exit status is 1 when a figure is wrong, 2 for wrong usage."""
    options = _options(arguments)
    device = torch.device(options.device)
    try:
        if device.type == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda, but torch sees no GPU; leave it out")
        if options.bits % 8:
            raise UserError(f"--bits {options.bits}, expected a multiple of 8")
        wrong = check(device, options.bits)
        print(f"largest AP difference from the loop on a small case: {wrong:.1e}")
        if wrong > 1e-12:
            return 1
        row = measure(options, device)
        if options.record:
            append_row(Path(options.record), row)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    width = max(map(len, row))
    for name, value in row.items():
        print(f"{name:<{width}}  {value}")
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="python -m benchmarks.evaluation", description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--database", type=int, default=50_000)
    parser.add_argument("--bits", type=int, default=64, help="a multiple of 8")
    parser.add_argument("--repeats", type=int, default=5, help="the best of these counts")
    parser.add_argument("--record", help="CSV file to add a row to")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Time the evaluation, its count of distances alone, and the loop."""
    codes, labels = make_problem(options.queries, options.database, options.bits, device)
    shots = np.linspace(500, 5, CLASSES).astype(int)

    def whole() -> Evaluation:
        return evaluate(*codes, *labels, code_length=options.bits, train_class_counts=shots)

    pairing = pair_up(*codes, *labels, code_length=options.bits)
    count_pairing(pairing.rows(0, 8))  # compiles the kernel
    memory = working_memory(whole, device)
    ours = best_time(whole, options.repeats, device)
    kernel = best_time(lambda: count_pairing(pairing), options.repeats, device)
    loop_rows = min(options.queries, LOOP_QUERIES[device.type], 5 * 10**6 // options.database + 1)
    per_query = time_loop(pairing, loop_rows, device) / loop_rows
    bandwidth, moved = copy_bandwidth(device), bytes_moved(pairing)
    return {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "kernel": pick_kernel(pairing).__name__.rsplit("_", 1)[-1],
        "queries": options.queries,
        "database": options.database,
        "bits": options.bits,
        "evaluate_ms": round(ours * 1e3, 2),
        "count_ms": round(kernel * 1e3, 2),
        "pairs_per_ns": round(options.queries * options.database / kernel / 1e9, 2),
        "loop_ms_a_query": round(per_query * 1e3, 3),
        "times_faster_than_loop": round(per_query * options.queries / ours, 1),
        "copy_gb_per_s": round(bandwidth / 1e9, 1),
        "bytes_moved_mb": round(moved / 1e6, 2),
        "limit_ms": round(moved / bandwidth * 1e3, 4),
        "times_the_limit": round(ours * bandwidth / moved, 1),
        "working_memory_mib": round(memory / 2**20, 1),
    }


def make_problem(
    queries: int, database: int, bits: int, device: torch.device
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Packed codes around one centre a class, a quarter of the bits flipped, and class indices."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randint(0, 256, (CLASSES, bits // 8), generator=generator, dtype=torch.uint8)
    codes, labels = [], []
    for count in (queries, database):
        classes = torch.randint(0, CLASSES, (count,), generator=generator)
        draws = [
            torch.randint(0, 256, (count, bits // 8), generator=generator, dtype=torch.uint8)
            for _ in range(2)
        ]
        codes.append((centres[classes] ^ (draws[0] & draws[1])).to(device))
        labels.append(classes.to(device))
    return (codes[0], codes[1]), (labels[0], labels[1])


def loop_average_precision(query: Tensor, database: Tensor, relevant: Tensor) -> Tensor:
    """AP of one query as published code computes it: product, argsort, cumulative precision."""
    distance = 0.5 * (len(query) - database @ query)
    hits = relevant[distance.argsort(stable=True)]
    ranks = torch.nonzero(hits).flatten() + 1
    found = torch.arange(1, len(ranks) + 1, device=ranks.device)
    return (found.double() / ranks).sum() / max(1, len(ranks))


def time_loop(pairing: Pairing, queries: int, device: torch.device) -> float:
    """Seconds that the loop takes for the first `queries` queries."""
    query, database = signs(pairing.query[:queries], pairing), signs(pairing.database, pairing)
    labels = pairing.labels

    def run() -> None:
        for row in range(queries):
            loop_average_precision(query[row], database, labels.database == labels.query[row])

    return best_time(run, 3, device)


def signs(words: Tensor, pairing: Pairing) -> Tensor:
    """Code words as float ±1, (n, bits)."""
    columns = [words[:, bit // 64] >> bit % 64 & 1 for bit in range(pairing.code_length)]
    return torch.stack([column.float() for column in columns], 1) * 2 - 1


def check(device: torch.device, bits: int) -> float:
    """Largest difference of a query's AP from the loop, ties in the database's order; ∞ when the
    tie expectation is not the mean over shuffled databases."""
    codes, labels = make_problem(20, 3000, bits, device)
    pairing = pair_up(*codes, *labels, code_length=bits)
    query, database = signs(pairing.query, pairing), signs(pairing.database, pairing)

    def loop(row: int, order: Tensor) -> float:
        relevant = labels[1][order] == labels[0][row]
        return float(loop_average_precision(query[row], database[order], relevant))

    as_is = torch.arange(len(database), device=device)
    plain = [loop(row, as_is) for row in range(len(query))]
    found = evaluate(*codes, *labels, code_length=bits, ties="index").ap_per_query
    expected = evaluate(*codes, *labels, code_length=bits).ap_per_query
    for row in range(2):
        drawn = [loop(row, torch.randperm(len(database), device=device)) for _ in range(300)]
        if abs(np.mean(drawn) - expected[row]) > 5 * np.std(drawn) / len(drawn) ** 0.5 + 1e-12:
            return float("inf")
    return float(np.abs(found - plain).max())


def working_memory(work: Callable[[], Any], device: torch.device) -> int:
    """Bytes that the work takes at its peak above what was in use before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return int(torch.cuda.max_memory_allocated() - before)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def bytes_moved(pairing: Pairing) -> int:
    """Least traffic: codes and labels read once, counts written once."""
    labels = pairing.labels
    inputs = [pairing.query, pairing.database, labels.query, labels.database]
    counts = 4 * len(pairing.query) * labels.grades * (pairing.code_length + 1)
    return sum(side.numel() * side.element_size() for side in inputs) + counts


def cpu_name() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
