"""The written form of a split: what names it, and lets others use the very same."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from data.faults import shown
from data.source import Source
from data.split import Split, database_images, given_query
from utils.errors import UserError

_ROLES = ("train", "validation", "query", "database", "open_query")
_EMPTY = np.zeros(0, dtype=np.int64)


def manifest(source: Source, split: Split) -> dict[str, Any]:
    """Return all that names a split, ready for JSON.

    Class sizes stand by rank (1 = largest); train and validation, and queries where they were
    drawn, as image names; each role with its count and a SHA-256 of its names and labels.
    """
    order = np.argsort(-split.class_counts, kind="stable")
    drawn = given_query(source) is None
    roles = {role: getattr(split, role) for role in _ROLES}
    value: dict[str, Any] = {
        "dataset": source.name,
        "protocol": split.protocol,
        "imbalance_factor": split.imbalance_factor,
        "mu": split.mu,
        "n_max": int(split.class_counts.max()),
        "seed": split.seed,
        "classes": [
            {"rank": rank, "name": source.class_names[c], "size": int(split.class_counts[c])}
            for rank, c in enumerate(order, start=1)
        ],
        "roles": {
            role: {"count": len(indices), "sha256": _role_digest(source, indices)}
            for role, indices in roles.items()
        },
        "train": _names(source, split.train),
        "validation": _names(source, split.validation),
        "query": _names(source, split.query) if drawn else None,
    }
    if split.headline_k is not None:
        value["headline_k"] = split.headline_k
    return value | {"digest": digest(value)}


def digest(manifest: dict[str, Any]) -> str:
    """Return the SHA-256, in hex, of the names and labels of every role of a manifest."""
    roles = {role: manifest["roles"][role]["sha256"] for role in _ROLES}
    return hashlib.sha256(json.dumps(roles, sort_keys=True).encode()).hexdigest()


def read_split(path: str | Path, source: Source) -> Split:
    """Return exactly the split whose manifest was written as JSON.

    Raises:
        UserError: the file is missing or not a manifest, names images that the source lacks, or
            its digest does not fit what is rebuilt (other images or labels, or edited by hand).
    """
    try:
        value = json.loads(Path(path).read_bytes())  # UTF-8, -16 or -32, by its first bytes
        sizes = {row["name"]: int(row["size"]) for row in value["classes"]}
        recorded = value["digest"]
        train = _indices(source, value["train"], path)
        validation = _indices(source, value["validation"], path)
        query = given_query(source)
        if query is None:
            query = _indices(source, value["query"] or [], path)
        split = Split(
            train=train,
            validation=validation,
            query=query,
            database=database_images(source, query),
            open_query=source.subsets.get("open", _EMPTY),
            class_counts=np.array([sizes.get(n, 0) for n in source.class_names], dtype=np.int64),
            **_described(value),
        )
    except UserError:
        raise
    except Exception as error:  # of many kinds: whatever the JSON holds instead
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"split file {shown(path)} is not a manifest ({reason});"
            " write one with python -m data.long_tail --out"
        ) from error
    rebuilt = manifest(source, split)
    if rebuilt != value:
        raise UserError(
            f"split file {shown(path)} (digest {str(recorded)[:12]}) does not fit dataset"
            f" {source.name} (digest {rebuilt['digest'][:12]}): its images, labels or the file"
            " were changed; use the dataset it was made from or make a new split"
        )
    return split


def _described(value: dict[str, Any]) -> dict[str, Any]:
    """Return what a split says of itself; the digest does not cover it, so its kinds are checked.

    Raises:
        ValueError: a value is of another kind.
    """
    given = {key: value.get(key) for key in ("imbalance_factor", "mu", "headline_k")}
    for key, number in given.items():
        kinds = (int,) if key == "headline_k" else (int, float)
        if number is not None and not (type(number) in kinds and 0 < number < math.inf):
            raise ValueError(f"{key} is {number!r}")
    given |= {"protocol": value["protocol"], "seed": value["seed"]}
    if not isinstance(given["protocol"], str) or type(given["seed"]) is not int:
        raise ValueError(f"protocol is {given['protocol']!r}, seed is {given['seed']!r}")
    return given


def _names(source: Source, indices: np.ndarray) -> list[str]:
    return [source.image_names[index] for index in indices]


def _indices(source: Source, names: list[str], path: str | Path) -> np.ndarray:
    index_of = {name: index for index, name in enumerate(source.image_names)}
    unknown = [name for name in names if name not in index_of]
    if unknown:
        raise UserError(
            f"split file {shown(path)} names {len(unknown)} images that {source.name} lacks, first"
            f" {unknown[0]!r}; use the dataset it was made from or make a new split"
        )
    return np.array(sorted(index_of[name] for name in names), dtype=np.int64)


def _role_digest(source: Source, indices: np.ndarray) -> str:
    """Hash names and labels, sorted by name so that the source's order does not count."""
    membership = source.membership()[indices]
    lines = []
    for index, row in zip(indices, membership, strict=True):
        labels = sorted(source.class_names[c] for c in np.flatnonzero(row))
        lines.append(json.dumps([source.image_names[index], labels]))
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
