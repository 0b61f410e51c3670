"""What `--check_data` reports: counts, unreadable files, labels, overlap. Trains nothing."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from data.content import hash_bytes
from data.feature_rows import not_finite
from data.leakage import OnLeak, describe_leaks, find_leaks
from data.protocol import ROLES, Protocol
from data.source import Source
from data.split import make_split
from utils.errors import UserError


@dataclass(frozen=True)
class SubsetSummary:
    """Counts of one subset; images a class as (smallest, median, largest)."""

    name: str
    images: int
    per_class: tuple[int, float, int]
    labels_per_image: tuple[int, float, int] | None  # of multi-label sources


@dataclass(frozen=True)
class SourceReport:
    """What was found in a source.

    unreadable: the message of every image that cannot be decoded.
    overlap: (query, training or database image) names with equal pixels.
    protocol: the protocol's counts in a line, or None where there is none.
    misfit: why the source does not fit the protocol, or None.
    on_leak: 'warn' where overlap is known and no fault.
    """

    name: str
    num_classes: int
    subsets: list[SubsetSummary]
    unreadable: list[str]
    overlap: list[tuple[str, str]]
    protocol: str | None = None
    misfit: str | None = None
    on_leak: OnLeak = "error"

    @property
    def ok(self) -> bool:
        """Whether images can be read, no query is searched, and the protocol's counts hold."""
        leaking = bool(self.overlap) and self.on_leak == "error"
        return not self.unreadable and not leaking and self.misfit is None

    def lines(self) -> list[str]:
        """Return the report for printing."""
        lines = [f"{self.name}: {self.num_classes} classes"]
        for subset in self.subsets:
            line = f"  {subset.name}: {subset.images} images"
            if subset.name != "open":
                line += ", a class {} to {}, median {:g}".format(*_spread(subset.per_class))
            if subset.labels_per_image:
                line += ", labels an image {} to {}, median {:g}".format(
                    *_spread(subset.labels_per_image)
                )
            lines.append(line)
        lines += [f"  {line}" for line in (self.protocol, self.misfit) if line is not None]
        lines.append(f"  unreadable images: {len(self.unreadable)}")
        lines += [f"    {message}" for message in self.unreadable]
        allowed = " (data.on_leak is 'warn')" if self.on_leak == "warn" else ""
        overlap = f"{describe_leaks(self.overlap)}{allowed}" if self.overlap else "no overlap"
        lines.append(f"  {overlap}")
        return lines


def check_source(
    source: Source,
    protocol: Protocol | None = None,
    seed: int = 0,
    on_leak: OnLeak = "error",
) -> SourceReport:
    """Decode every image of a source and report on it; broken images are listed, not raised.

    protocol: draws, with the seed, the queries and training images whose counts and overlap are
        reported; without one these are the publisher's own.
    on_leak: 'warn' takes overlap for no fault, as a run then does.
    """
    digests, unreadable = _decode_all(source)
    roles, misfit = dict(source.subsets), None
    if protocol is not None:
        try:
            split = make_split(source, protocol=protocol, seed=seed, validation_per_class=0)
            roles |= {role: getattr(split, role) for role in ROLES}
        except UserError as error:
            misfit = str(error)
    queries = _readable(roles, digests, {"test", "query", "open"})
    others = _readable(roles, digests, {"train", "database"})
    return SourceReport(
        name=source.name,
        num_classes=source.num_classes,
        subsets=[_summary(source, name, indices) for name, indices in source.subsets.items()],
        unreadable=unreadable,
        overlap=find_leaks(
            [source.image_names[i] for i in queries],
            [digests[i] for i in queries],
            [source.image_names[i] for i in others],
            [digests[i] for i in others],
        ),
        protocol=None if protocol is None or misfit else _counts(protocol, roles),
        misfit=misfit,
        on_leak=on_leak,
    )


def _counts(protocol: Protocol, roles: dict[str, np.ndarray]) -> str:
    counts = ", ".join(f"{role} {len(roles[role])}" for role in ROLES)
    return f"protocol {protocol.name}, {protocol.metric}: {counts}, as expected"


def _decode_all(source: Source) -> tuple[dict[int, bytes], list[str]]:
    """Return the pixel digest of each readable image, and a message for each other."""

    def decode(index: int) -> bytes | str:
        if source.features is not None:
            row = source.features[index]
            finite = np.isfinite(row).all()
            return hash_bytes(row.tobytes()) if finite else not_finite(source.image_names[index])
        try:
            image = source.read(index)
        except UserError as error:
            return str(error)
        return hash_bytes(repr(image.size).encode() + image.tobytes())

    used = np.unique(np.concatenate(list(source.subsets.values()))).tolist()
    with ThreadPoolExecutor() as pool:
        quiet = len(used) < 1000 or None  # None: only on a terminal
        bar = tqdm(pool.map(decode, used), "checking images", len(used), disable=quiet)
        found = dict(zip(used, bar, strict=True))
    digests = {index: value for index, value in found.items() if isinstance(value, bytes)}
    return digests, [value for value in found.values() if isinstance(value, str)]


def _readable(
    roles: dict[str, np.ndarray], digests: dict[int, bytes], names: set[str]
) -> list[int]:
    indices = {int(index) for name in names & roles.keys() for index in roles[name]}
    return sorted(indices & digests.keys())


def _summary(source: Source, name: str, indices: np.ndarray) -> SubsetSummary:
    membership = source.membership()[indices]
    return SubsetSummary(
        name=name,
        images=len(indices),
        per_class=_statistics(membership.sum(0)),
        labels_per_image=_statistics(membership.sum(1)) if source.multi_label else None,
    )


def _statistics(counts: np.ndarray) -> tuple[int, float, int]:
    return int(counts.min()), float(np.median(counts)), int(counts.max())


def _spread(statistics: tuple[int, float, int]) -> tuple[int, int, float]:
    """Reorder (smallest, median, largest) as it is read aloud: from, to, median."""
    smallest, median, largest = statistics
    return smallest, largest, median
