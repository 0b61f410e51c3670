"""Does a memory add to the direct feature? `python -m benchmarks.memory_study FEATURES.npz …`.

Trains the heads of benchmarks/memory_study_heads.py on the features of a finished stage 1
(benchmarks/memory_features.py writes them), whose network stays as it is: each as long, on the
same class-aware batches and augmented copies, so that a head with a memory and the direct one
differ in nothing else. MAP is that of the validation queries. One row a head and seed is added
to the record, with the use of the memory for the first seed; rows that it holds are not made
again. `--summary` prints means, and each head's
difference from the direct one, paired by seed.
"""

import argparse
import csv
import math
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from scipy.stats import ttest_rel
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.memory_features import Features, read_features
from benchmarks.memory_study_heads import VARIANTS, Variant
from benchmarks.rows import append_row
from data.samplers import class_aware_batches
from engine.memory_use import MEASURES, NEEDED, class_means, memory_use
from models.cosine_attention import powered
from models.memory import memory_parts
from retrieval.codes import binarize, pack
from retrieval.metrics import FEW_BELOW, evaluate
from utils.errors import UserError
from utils.parser import OneLineParser

BATCH_SIZE, WARMUP_EPOCHS = 64, 2
RATE, RATE_ANEW, WEIGHT_DECAY = 5e-4, 1e-3, 0.2  # those of stage 2 and stage 1
Row = dict[str, Any]


def study(
    features: Features, name: str, seed: int, epochs: int, describe: bool = True
) -> tuple[Row, list[Row]]:
    """Train and score one head; its row and, to `describe` how it uses its memory, one a class."""
    variant = VARIANTS[name]
    torch.manual_seed(seed)
    head = make_head(features, variant)
    loss, moved = train(head, variant, features, seed, epochs if variant.trained else 0)
    head.eval()
    query, database = outputs_of(head, features.query), outputs_of(head, features.database)
    found = evaluate(
        pack(binarize(query["codes"])),
        pack(binarize(database["codes"])),
        features.query_labels,
        features.database_labels,
        code_length=query["codes"].shape[1],
        top_k=(),
        train_class_counts=features.class_counts,
    )
    right = query["logits"].argmax(1) == features.query_labels
    row = {
        "features": features.name,
        "head": name,
        "seed": seed,
        "epochs": epochs if variant.trained else 0,
        "map": round(found.map, 4),
        **{f"map_{group}": round(value or 0.0, 4) for group, value in found.groups.items()},
        "accuracy": round(float(right.float().mean()), 4),
        "train_loss": None if loss is None else round(loss, 4),
    }
    use, classes = describe_memory(head, variant, features, describe)
    row |= {**use, "memory_moved": None if moved is None else round(moved, 4)}
    about = {name: row[name] for name in ("features", "head", "seed")}
    return row, [{**about, **each} for each in classes]


def make_head(features: Features, variant: Variant) -> nn.Module:
    """The variant's head, with stage 1's weights where it starts from them."""
    bits, width = features.head["hash_layer.weight"].shape
    sizes = [features.train.shape[1], width, bits, len(features.class_counts)]
    if variant.samples is not None:
        sizes.append((1 + variant.samples) * len(features.class_counts))
    head = variant.head(*sizes, **variant.options)
    if variant.from_stage_1:
        head.load_state_dict(features.head, strict=False)
    if hasattr(head, "use_features"):
        cast(Any, head).use_features(features.train, features.train_labels)
    return head


def train(
    head: nn.Module, variant: Variant, features: Features, seed: int, epochs: int
) -> tuple[float | None, float | None]:
    """Train as stage 2 does; the last epoch's loss and how far the memory moved in it."""
    moved = refresh(head, variant, features)
    steps = math.ceil(len(features.train) / BATCH_SIZE)
    rate = RATE if variant.from_stage_1 else RATE_ANEW
    optimizer = torch.optim.AdamW(head.parameters(), rate, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _rate(step, WARMUP_EPOCHS * steps, max(1, epochs) * steps)
    )
    copies = torch.cat([features.train[None], features.augmented])
    generator = torch.Generator().manual_seed(seed)
    labels, loss = features.train_labels, None
    membership = functional.one_hot(labels, len(features.class_counts)).bool().numpy()
    for epoch in range(epochs):
        head.train()
        losses = []
        for batch in class_aware_batches(
            np.arange(len(labels)), membership, BATCH_SIZE, seed, epoch
        ):
            rows = torch.from_numpy(batch)
            copy = torch.randint(len(copies), (len(rows),), generator=generator)
            _begin(head, rows)
            losses.append(
                functional.cross_entropy(head(copies[copy, rows])["logits"], labels[rows])
            )
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
            schedule.step()
        head.eval()
        _begin(head, None)
        moved = refresh(head, variant, features)
        loss = float(torch.stack(losses).detach().mean())
    return loss, moved if epochs else None


@torch.no_grad()
def refresh(head: Any, variant: Variant, features: Features) -> float | None:
    """Rebuild the memory; how far it moved, beside its length."""
    if variant.samples is None:
        return None
    labels, before = features.train_labels, head.memory.clone()
    direct = functional.relu(head.feature_layer(features.train))
    chosen = variant.choose(direct, labels, len(features.class_counts), variant.samples)
    inputs = powered(features.train, head.power) if hasattr(head, "keys") else None
    parts = memory_parts(direct, inputs, labels, chosen, getattr(head, "shrinkage", None))
    head.set_memory(**parts)
    return float((head.memory - before).norm() / head.memory.norm())


@torch.no_grad()
def outputs_of(head: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """The head's outputs for many inputs."""
    parts = [head(part) for part in inputs.split(1000)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def describe_memory(
    head: Any, variant: Variant, features: Features, describe: bool
) -> tuple[Row, list[Row]]:
    """Means over classes of what MEASURES names, by kind of image, and the same class by class."""
    kinds = {
        "train": (features.train, features.train_labels),
        "augmented": (features.augmented[0], features.train_labels),
        "query": (features.query, features.query_labels),
    }
    columns = [f"{measure}_{kind}" for measure in MEASURES for kind in kinds]
    columns += ["own_attention_query_few", "own_row_first_query"]
    row: Row = dict.fromkeys([*columns, "effective_rank"])
    if variant.samples is None or not describe:
        return row, []
    classes = [{"class": c, "images": int(n)} for c, n in enumerate(features.class_counts)]
    for kind, (inputs, labels) in kinds.items():
        outputs = outputs_of(head, inputs)
        membership = functional.one_hot(labels, len(classes)).bool()
        use = memory_use(
            {name: outputs[name] for name in NEEDED}, _without_memory(head, inputs), membership
        )
        for measure, values in use.items():
            means = class_means(values, membership)
            row[f"{measure}_{kind}"] = round(float(means.nanmean()), 4)
            for each, mean in zip(classes, means.tolist(), strict=True):
                each[f"{measure}_{kind}"] = round(mean, 4)
    few = class_means(use["own_attention"], membership)[features.class_counts < FEW_BELOW]
    row["own_attention_query_few"] = round(float(few.nanmean()), 4)
    most = outputs["attention"].unflatten(1, (len(classes), -1)).sum(2).argmax(1)
    row["own_row_first_query"] = round(float((most == labels).float().mean()), 4)
    row["effective_rank"] = round(effective_rank(head.memory), 1)
    return row, classes


def effective_rank(rows: Tensor) -> float:
    """exp of the entropy of the centred rows' normalised singular values (Roy & Vetterli, 2007)."""
    values = torch.linalg.svdvals((rows - rows.mean(0)).double())
    return float(torch.special.entr(values / values.sum()).sum().exp())


def summarise(rows: list[dict[str, str]]) -> str:
    """A table: each head's mean MAP, and its difference from the direct one of the same seed."""
    maps: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for row in rows:
        maps[row["features"], row["head"]][row["seed"]] = float(row["map"])
    lines = ["| features | head | seeds | MAP | less direct | p |", "|---|---|---|---|---|---|"]
    for (features, head), found in maps.items():
        direct = maps.get((features, "direct"), {})
        seeds = sorted(found.keys() & direct.keys())
        mine = np.array([found[seed] for seed in seeds])
        theirs = np.array([direct[seed] for seed in seeds])
        differs = len(seeds) > 1 and np.ptp(mine - theirs) > 0
        p = f"{ttest_rel(mine, theirs).pvalue:.1e}" if differs else "-"
        mean = f"{np.mean(list(found.values())):.4f}"
        gain = f"{(mine - theirs).mean():+.4f}" if len(seeds) else "-"
        lines.append(f"| {features} | {head} | {len(found)} | {mean} | {gain} | {p} |")
    return "\n".join(lines)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The record's rows; none if there is no record."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _rate(step: int, warmup: int, total: int) -> float:
    """Linear warm-up, then half a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def _begin(head: nn.Module, rows: Tensor | None) -> None:
    if hasattr(head, "begin_batch"):
        cast(Any, head).begin_batch(rows)


def _without_memory(head: Any, inputs: Tensor) -> Tensor:
    """Codes of the head with an empty memory."""
    memory = head.memory.clone()
    head.memory.zero_()
    codes = outputs_of(head, inputs)["codes"]
    head.memory.copy_(memory)
    return codes


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="python -m benchmarks.memory_study", description=__doc__)
    parser.add_argument("features", nargs="*", metavar="FEATURES.npz")
    parser.add_argument("--heads", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--record", type=Path, required=True, help="CSV file to add rows to")
    parser.add_argument("--classes", type=Path, help="CSV file: the memory's use by class")
    parser.add_argument("--summary", action="store_true", help="print the record's table")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the study; 0, or 2 after a one-line message on a user's mistake."""
    options = _options(arguments)
    try:
        for path in options.features:
            features = read_features(path)
            for seed in options.seeds:
                for name in options.heads:
                    _record(options, features, name, seed)
        if options.summary:
            print(summarise(read_rows(options.record)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _record(options: argparse.Namespace, features: Features, name: str, seed: int) -> None:
    """Add a head's rows to the record, unless it is there."""
    key = (features.name, name, str(seed))
    if key in {(r["features"], r["head"], r["seed"]) for r in read_rows(options.record)}:
        return
    first = seed == options.seeds[0]
    row, classes = study(features, name, seed, options.epochs, describe=first)
    print(f"{features.name} {name} {seed}: MAP {row['map']:.4f}", flush=True)
    append_row(options.record, row)
    if options.classes:
        for each in classes:
            append_row(options.classes, each)


if __name__ == "__main__":
    sys.exit(main())
