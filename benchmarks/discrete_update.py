"""How fast database codes are learned: `python -m benchmarks.discrete_update [--device cuda]`.

One turn of the codes of ADSH (engine/alternate_codes.py) for made-up labels and network outputs
and, where it fits, the same turn as published code has it, with S of samples x database as a float
matrix: both in one run, and their codes compared first.
"""

import argparse
import datetime
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.rows import append_row
from benchmarks.timing import best_time
from engine.alternate_codes import Groups, database_view, make_sample, update_codes
from utils.errors import UserError
from utils.parser import OneLineParser

GAMMA = 200.0
SHARE_OF_LABELS = 0.1  # that an image of several labels has each of them
MOST_DIFFERING = 1e-4  # share of bits: near ties fall either way in float32


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; the exit status is 1 when codes differ, 2 for wrong usage."""
    options = _options(arguments)
    device = torch.device(options.device)
    try:
        if device.type == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda, but torch sees no GPU; leave it out")
        for rows in options.rows:
            row = measure(options, rows, device)
            print(", ".join(f"{name} {value}" for name, value in row.items()))
            if row["differing_bits"] is not None and row["differing_bits"] > MOST_DIFFERING:
                return 1
            if options.record:
                append_row(Path(options.record), row)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="python -m benchmarks.discrete_update", description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 1_000_000, 10_000_000])
    parser.add_argument("--bits", type=int, default=48)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--multi_label", action="store_true", help="several labels an image")
    parser.add_argument(
        "--dense_rows", type=int, default=200_000, help="largest database for the dense matrix"
    )
    parser.add_argument("--repeats", type=int, default=3, help="the best of these counts")
    parser.add_argument("--record", help="CSV file to add a row to")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace, rows: int, device: torch.device) -> dict[str, Any]:
    """Time a turn of the codes, what the network's turn needs of them, and the dense turn."""
    labels, drawn, outputs, start = make_problem(options, rows, device)
    groups = Groups(labels, options.classes)
    sample = make_sample(groups, drawn, "auto")
    codes = start.clone()
    update_codes(codes, groups, sample, outputs, GAMMA)  # of the first codes, to be compared
    differing, ratio, dense_seconds = None, None, None
    if rows <= options.dense_rows:
        differing = float((dense_update(start, labels, drawn, outputs) != codes).float().mean())
        dense_seconds = best_time(
            lambda: dense_update(start, labels, drawn, outputs), options.repeats, device
        )
    seconds = best_time(
        lambda: update_codes(codes, groups, make_sample(groups, drawn, "auto"), outputs, GAMMA),
        options.repeats,
        device,
    )
    view = best_time(lambda: database_view(groups, sample, codes), options.repeats, device)
    if dense_seconds is not None:
        ratio = round(dense_seconds / seconds, 1)
    on_gpu = device.type == "cuda"
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rows": rows,
        "bits": options.bits,
        "samples": options.samples,
        "labels": "several" if options.multi_label else "one",
        "update_ms": round(1e3 * seconds, 2),
        "rows_per_second": round(rows / seconds),
        "view_ms": round(1e3 * view, 2),
        "dense_ms": None if dense_seconds is None else round(1e3 * dense_seconds, 2),
        "times_faster_than_dense": ratio,
        "differing_bits": differing,
    }


def make_problem(
    options: argparse.Namespace, rows: int, device: torch.device
) -> tuple[Tensor, np.ndarray[Any, np.dtype[np.int64]], Tensor, Tensor]:
    """Labels, drawn rows, outputs U that lean to a code of the class, and random codes."""
    generator = torch.Generator(device).manual_seed(0)
    count, bits = min(options.samples, rows), options.bits
    if options.multi_label:
        chances = torch.rand(rows, options.classes, generator=generator, device=device)
        labels = (chances < SHARE_OF_LABELS).to(torch.uint8)
        centres = labels.float()
    else:
        labels = torch.randint(options.classes, (rows,), generator=generator, device=device)
        centres = torch.nn.functional.one_hot(labels, options.classes).float()
    drawn = np.sort(np.random.default_rng(0).choice(rows, count, replace=False))
    directions = torch.randn(options.classes, bits, generator=generator, device=device)
    noise = torch.randn(count, bits, generator=generator, device=device)
    outputs = torch.tanh(centres[torch.as_tensor(drawn, device=device)] @ directions + noise / 2)
    start = torch.randint(0, 2, (rows, bits), generator=generator, dtype=torch.int8, device=device)
    return labels, drawn, outputs, start * 2 - 1


def dense_update(
    codes: Tensor, labels: Tensor, drawn: np.ndarray[Any, np.dtype[np.int64]], outputs: Tensor
) -> Tensor:
    """The turn with S as a float matrix (m, N); returns new codes, int8 (N, q)."""
    rows = torch.as_tensor(drawn, device=codes.device)
    if labels.ndim == 1:
        share = (labels[rows][:, None] == labels).float()
    else:
        share = (labels[rows].float() @ labels.T.float() > 0).float()
    ratio = share.sum(dtype=torch.float64) / (1 - share).sum(dtype=torch.float64)
    similarity = ((1 + ratio) * share - ratio).float()
    linear = -2 * codes.shape[1] * similarity.T @ outputs
    linear[rows] -= 2 * GAMMA * outputs
    values = codes.float()
    for bit in range(codes.shape[1]):
        kept = torch.arange(codes.shape[1], device=codes.device) != bit
        others = values[:, kept] @ (outputs[:, kept].T @ outputs[:, bit])
        values[:, bit] = torch.where(2 * others + linear[:, bit] >= 0, -1.0, 1.0)
    return values.to(torch.int8)


if __name__ == "__main__":
    sys.exit(main())
