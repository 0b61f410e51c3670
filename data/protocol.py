"""Protocols: the published ways of dividing a dataset, as data in data/protocols/*.yaml."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data.source import Source
from utils.errors import UserError, unknown_key

FOLDER = Path(__file__).parent / "protocols"
ROLES = ("query", "train", "database")
_KEYS = ("dataset", "publication", "labels", "queries", "train", "database", "metric", "expected")
_DRAWS = ("per_class", "total")


@dataclass(frozen=True)
class Draw:
    """How many images are drawn; one of the two is None.

    per_class: of each class; of a multi-label source, of each concept, none counted twice.
    total: in all, whatever their labels.
    """

    per_class: int | None = None
    total: int | None = None


@dataclass(frozen=True)
class Protocol:
    """Who asks, who is trained on, and what is searched.

    The database is every image that is no query.

    name: names it in configs, figures and records.
    dataset, publication: what it divides, and who published it.
    multi_label: whether its images have several labels.
    queries: drawn from all images.
    train: drawn from the database; None trains on all of it.
    headline_k: K of the published MAP@K; None is MAP@ALL.
    expected: 'classes' and each role -> least and most that the whole dataset gives.
    """

    name: str
    dataset: str
    publication: str
    multi_label: bool
    queries: Draw
    train: Draw | None
    headline_k: int | None
    expected: dict[str, tuple[int, int]]

    @property
    def metric(self) -> str:
        """The headline metric: MAP@ALL or MAP@K."""
        return f"MAP@{self.headline_k or 'ALL'}"


def load_protocol(name: str) -> Protocol:
    """Return the protocol data/protocols/<name>.yaml, or that of a file <name> ending in .yaml.

    Raises:
        UserError: no such protocol, or a key or value of the file that has no meaning.
    """
    own = name.endswith(".yaml")
    path = Path(name) if own else FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in FOLDER.glob("*.yaml")))
        raise UserError(
            f"data.protocol is {name!r}: no such file"
            if own
            else f"data.protocol is {name!r}; expected one of {known}, or a .yaml file"
        )
    try:
        value = yaml.safe_load(path.read_bytes())  # UTF-8 or -16, by its first bytes
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(
            f"protocol {path} cannot be read ({' '.join(str(error).split())})"
        ) from error
    return _protocol(path, value)


def _protocol(path: Path, value: Any) -> Protocol:
    _check_keys(path, "protocol", value, _KEYS, _KEYS)
    if value["labels"] not in ("single", "multi"):
        raise UserError(f"{path}: labels is {value['labels']!r}; expected single or multi")
    if value["database"] != "rest":
        raise UserError(f"{path}: database is {value['database']!r}; expected rest")
    _check_keys(path, "expected", value["expected"], ("classes", *ROLES), ("classes", *ROLES))
    return Protocol(
        name=path.stem,
        dataset=str(value["dataset"]),
        publication=str(value["publication"]),
        multi_label=value["labels"] == "multi",
        queries=_draw(path, "queries", value["queries"]),
        train=None if value["train"] == "database" else _draw(path, "train", value["train"]),
        headline_k=_headline_k(path, value["metric"]),
        expected={role: _range(path, role, each) for role, each in value["expected"].items()},
    )


def _check_keys(
    path: Path, what: str, value: Any, known: tuple[str, ...], needed: tuple[str, ...] = ()
) -> None:
    if not isinstance(value, dict):
        raise UserError(f"{path}: {what} is {value!r}; expected keys {', '.join(known)}")
    for key in value:
        if key not in known:
            raise unknown_key(f"{path}: {what}.{key}", key, list(known))
    missing = [key for key in needed if key not in value]
    if missing:
        raise UserError(f"{path}: {what} lacks {', '.join(missing)}")


def _draw(path: Path, what: str, value: Any) -> Draw:
    _check_keys(path, what, value, _DRAWS)
    if len(value) != 1 or not _is_count(next(iter(value.values()))):
        raise UserError(f"{path}: {what} is {value!r}; expected {{per_class: n}} or {{total: n}}")
    return Draw(**value)


def _headline_k(path: Path, metric: Any) -> int | None:
    found = re.fullmatch(r"MAP@(ALL|[1-9]\d*)", str(metric))
    if not found:
        raise UserError(f"{path}: metric is {metric!r}; expected MAP@ALL or MAP@K, as MAP@5000")
    return None if found[1] == "ALL" else int(found[1])


def _range(path: Path, role: str, value: Any) -> tuple[int, int]:
    low, high = value if isinstance(value, list) and len(value) == 2 else (value, value)
    if not _is_count(low) or not _is_count(high) or low > high:
        raise UserError(f"{path}: expected.{role} is {value!r}; expected n or [least, most]")
    return low, high


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def draw_images(
    source: Source, indices: np.ndarray, draw: Draw, what: str, stream: list[int]
) -> np.ndarray:
    """Return the drawn ones of `indices`, sorted; only images with a label are drawn.

    Of each class in turn, the rarest first (of equally rare ones the first), so that common
    concepts do not use up the images of rare ones; an image drawn for one concept is not drawn
    for another. Every multi-label draw of n a concept thus gives n times C images.

    what: names the images in messages, as 'query images'.

    Raises:
        UserError: there are too few images.
    """
    rng = np.random.default_rng(stream)
    if draw.per_class is None:
        assert draw.total is not None
        labelled = indices[source.membership()[indices].any(1)]
        _refuse_few(what, draw.total, len(labelled), source.name)
        return np.sort(rng.permutation(labelled)[: draw.total])
    taken = np.zeros(len(source), dtype=bool)
    groups = source.class_indices(indices)
    for c in np.argsort([len(group) for group in groups], kind="stable"):
        shuffled = rng.permutation(groups[c])
        free = shuffled[~taken[shuffled]]
        _refuse_few(what, draw.per_class, len(free), f"class {source.class_names[c]!r}")
        taken[free[: draw.per_class]] = True
    return np.flatnonzero(taken)


def _refuse_few(what: str, asked: int, found: int, owner: str) -> None:
    if found < asked:
        raise UserError(
            f"{asked} {what} are to be drawn from the {found} images of {owner};"
            " complete the dataset, or use another data.protocol"
        )


def check_labels(protocol: Protocol, source: Source) -> None:
    """Raise a UserError unless the source has the protocol's number of classes and labels."""
    _refuse_other_counts(protocol, source, {"classes": source.num_classes})
    if source.multi_label != protocol.multi_label:
        kinds = ("one label", "several labels")
        raise UserError(
            f"{source.name} does not fit protocol {protocol.name}: its images have"
            f" {kinds[source.multi_label]}, expected {kinds[protocol.multi_label]}"
        )


def check_counts(protocol: Protocol, source: Source, roles: dict[str, np.ndarray]) -> None:
    """Raise a UserError, naming what was found and expected, unless each role has its count."""
    _refuse_other_counts(protocol, source, {role: len(roles[role]) for role in ROLES})


def _refuse_other_counts(protocol: Protocol, source: Source, found: dict[str, int]) -> None:
    wrong = {
        role: count
        for role, count in found.items()
        if not protocol.expected[role][0] <= count <= protocol.expected[role][1]
    }
    if wrong:
        shown = ", ".join(
            f"{count} {role} (expected {_shown(protocol.expected[role])})"
            for role, count in wrong.items()
        )
        given = "query" in wrong and {"query", "test"} & source.subsets.keys()
        remedy = (
            "join its subsets to draw the queries (join: True in data.params)"
            if given
            else "complete the dataset, or use another data.protocol"
        )
        raise UserError(
            f"{source.name} ({len(source)} images) does not fit protocol {protocol.name}:"
            f" found {shown}; {remedy}"
        )


def _shown(expected: tuple[int, int]) -> str:
    low, high = expected
    return str(low) if low == high else f"{low} to {high}"
