"""Splits: which images are trained on, asked with, and searched.

Every kind of draw has a random stream of its own, [seed, purpose], so that changing how many
validation queries there are, say, leaves the training set as it was.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from data.long_tail import class_sizes, published_mu
from data.protocol import Draw, Protocol, check_counts, check_labels, draw_images
from data.source import Source
from utils.errors import UserError

Digests = Callable[[np.ndarray], list[bytes]]

_RANKS, _TRAIN, _QUERY, _VALIDATION = range(4)  # 4 is that of data/open_classes.py
_EMPTY = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Split:
    """The roles of a source's images; each role is a sorted int64 array of image indices.

    Validation queries may be members of `database`, never of `train`: the final evaluation's
    database keeps every image, and who validates takes them out for that while.

    class_counts: (C,) int64 images a class of the training set, before any validation share is
        held out of it.
    imbalance_factor, mu: of a drawn long tail, else None.
    protocol: a short name to print with figures.
    headline_k: K of the MAP@K that the protocol publishes; None is MAP@ALL.
    """

    train: np.ndarray
    validation: np.ndarray
    query: np.ndarray
    database: np.ndarray
    open_query: np.ndarray
    class_counts: np.ndarray
    imbalance_factor: float | None
    mu: float | None
    protocol: str
    seed: int
    headline_k: int | None = None

    @property
    def metric(self) -> str:
        """The headline metric: MAP@ALL or MAP@K."""
        return f"MAP@{self.headline_k or 'ALL'}"


def make_split(
    source: Source,
    *,
    protocol: Protocol | None = None,
    imbalance_factor: float | None = None,
    n_max: int | None = None,
    mu: float | None = None,
    seed: int = 0,
    queries_per_class: int | None = None,
    validation_per_class: int = 10,
    digests: Digests | None = None,
) -> Split:
    """Draw a split of a source.

    Queries are the subset 'test' or 'query'; a source without one gives `queries_per_class`
    drawn images a class (by default 20 % of the class, at most 30).
    The database is the subset 'database', else every image of 'train' (or 'all') that is not a
    drawn query.
    The training set is the subset 'train' (or 'all' without the queries) as it is; with an
    imbalance factor it is drawn from the database, with the class sizes of
    `data.long_tail.class_sizes` (n_max by default the size of the smallest class). Without
    one, n_max and mu have no meaning and are ignored.
    Validation queries are the subset 'val', else up to `validation_per_class` images a class of
    the database that are not trained on; a class without such images has none. Only when no
    class has any are they held out of the training set: at most 20 % of a class.
    Multi-label sources draw over all images instead, with per-class numbers times C; of the
    images that are not trained on at most 20 % validate.

    protocol: draws queries and training images instead, where the source has none of its own
        ('query' or 'test'; 'train' beside a 'database'), and vouches for the counts, those of
        the training images before any validation share is held out of them.
    digests: gives the content digests of images by index, so that no validation query is a copy
        of an image that is trained on. Needed where 'database' holds copies of the training
        files.

    Raises:
        UserError: a class has too few images for what is asked, the imbalance factor is out of
            range, queries are to be drawn though the source has them, validation would leave a
            class no database, a number is negative, or a long tail is asked of a multi-label
            source; or the source does not have the protocol's counts.
        ValueError: digests are needed and not given.
    """
    if protocol is not None:
        _refuse_beside(protocol, imbalance_factor, n_max, mu, queries_per_class)
        check_labels(protocol, source)
    if source.multi_label and imbalance_factor is not None:
        raise UserError(
            f"imbalance_factor {imbalance_factor} with the multi-label dataset {source.name};"
            " leave it None, since images of several classes have no class rank"
        )
    _refuse_negative(seed, queries_per_class, validation_per_class)
    query = _query(source, queries_per_class if protocol is None else protocol.queries, seed)
    database = database_images(source, query)
    if protocol is not None:
        train = _protocol_train(source, protocol, database, seed)
        check_counts(protocol, source, {"query": query, "train": train, "database": database})
    elif imbalance_factor is None:
        mu = None
        train = np.setdiff1d(_pool(source), query)
    else:
        n_max = int(source.class_counts(database).min()) if n_max is None else n_max
        if mu is None:
            mu = published_mu(source.num_classes, n_max, imbalance_factor)
        sizes = class_sizes(source.num_classes, n_max, imbalance_factor, mu)
        train = _long_tail(source, database, sizes, seed)
    class_counts = source.class_counts(train)
    validation = _validation(source, train, database, validation_per_class, seed, digests)
    return Split(
        train=np.setdiff1d(train, validation),
        validation=validation,
        query=query,
        database=database,
        open_query=source.subsets.get("open", _EMPTY),
        class_counts=class_counts,
        imbalance_factor=imbalance_factor,
        mu=mu,
        protocol=_described(source, query, imbalance_factor, n_max, protocol),
        seed=seed,
        headline_k=protocol.headline_k if protocol else None,
    )


def _refuse_negative(seed: int, queries: int | None, validation: int) -> None:
    for name, value, least in (
        ("seed", seed, 0),
        ("queries_per_class", 1 if queries is None else queries, 1),
        ("validation_per_class", validation, 0),
    ):
        if value < least:
            raise UserError(f"{name} is {value}; expected {least} or more")


def _refuse_beside(protocol: Protocol, *others: float | None) -> None:
    names = ("imbalance_factor", "n_max", "mu", "queries_per_class")
    for name, value in zip(names, others, strict=True):
        if value is not None:
            raise UserError(
                f"{name} is {value} beside protocol {protocol.name}, which says how images are"
                " drawn; leave one of them None"
            )


def given_query(source: Source) -> np.ndarray | None:
    """Return the publisher's queries, None where they are to be drawn."""
    return source.subsets.get("query", source.subsets.get("test"))


def _pool(source: Source) -> np.ndarray:
    return source.subsets["train"] if "train" in source.subsets else source.subsets["all"]


def database_images(source: Source, query: np.ndarray) -> np.ndarray:
    """Return the subset 'database', else all training images that are no drawn query."""
    if "database" in source.subsets:
        return source.subsets["database"]
    return np.setdiff1d(_pool(source), query)


def _query(source: Source, asked: int | Draw | None, seed: int) -> np.ndarray:
    given = given_query(source)
    if given is not None:
        if isinstance(asked, int):
            raise UserError(
                f"queries_per_class is {asked} but {source.name} has its own queries; leave"
                " it None, or join the subsets (join: True in the source's params)"
            )
        return given
    if isinstance(asked, Draw):
        return draw_images(source, _pool(source), asked, "query images", [seed, _QUERY])
    groups = _groups(source, _pool(source))
    factor = source.num_classes if source.multi_label else 1
    if asked is None:
        counts = [min(30 * factor, max(len(group) // 5, 1)) for group in groups]
    else:
        counts = [asked * factor] * len(groups)
    for c, (group, count) in enumerate(zip(groups, counts, strict=True)):
        if count >= len(group):
            what = source.name if source.multi_label else f"class {source.class_names[c]!r}"
            raise UserError(
                f"{count} queries are to be drawn from the {len(group)} images of {what};"
                " lower queries_per_class or add images"
            )
    return _draw(groups, counts, [seed, _QUERY])


def _protocol_train(
    source: Source, protocol: Protocol, database: np.ndarray, seed: int
) -> np.ndarray:
    if "database" in source.subsets:
        return source.subsets["train"]
    if protocol.train is None:
        return database
    return draw_images(source, database, protocol.train, "training images", [seed, _TRAIN])


def _groups(source: Source, indices: np.ndarray) -> list[np.ndarray]:
    """What is drawn from: each class by itself, or all labelled images if of several labels."""
    if source.multi_label:
        return [indices[source.membership()[indices].any(1)]]
    return source.class_indices(indices)


def _draw(groups: list[np.ndarray], counts: Iterable[int], stream: list[int]) -> np.ndarray:
    """Draw counts[g] images of each group, sorted.

    The draw permutes whole groups, so that asking for fewer gives a subset of asking for more.
    """
    rng = np.random.default_rng(stream)
    drawn = [rng.permutation(group)[:count] for group, count in zip(groups, counts, strict=True)]
    return np.sort(np.concatenate([_EMPTY, *drawn]))


def _long_tail(
    source: Source, pool: np.ndarray, sizes_by_rank: np.ndarray, seed: int
) -> np.ndarray:
    ranks = np.random.default_rng([seed, _RANKS]).permutation(source.num_classes)
    sizes = sizes_by_rank[ranks]
    available = source.class_counts(pool)
    short = np.flatnonzero(available < sizes)
    if len(short):
        c = short[0]
        raise UserError(
            f"class {source.class_names[c]!r} has {available[c]} images but its rank asks for"
            f" {sizes[c]}; set n_max to at most {available.min()}, the smallest class, or leave"
            " imbalance_factor None to train on the images as they are"
        )
    return _draw(source.class_indices(pool), sizes, [seed, _TRAIN])


def _validation(
    source: Source,
    train: np.ndarray,
    database: np.ndarray,
    per_class: int,
    seed: int,
    digests: Digests | None,
) -> np.ndarray:
    if per_class == 0:
        return _EMPTY
    if "val" in source.subsets:
        return source.subsets["val"]
    outside = np.setdiff1d(database, train)
    if digests is not None:
        trained = set(digests(train))
        outside = outside[[content not in trained for content in digests(outside)]]
    elif not np.isin(train, database).any():
        raise ValueError("train and database share no image: pass digests to find its copies")
    per_group = per_class * (source.num_classes if source.multi_label else 1)
    groups = _groups(source, outside)
    if not len(outside):
        groups = _groups(source, _without_copies(train, digests))
        counts = [min(per_group, len(group) // 5) for group in groups]
    elif source.multi_label:
        counts = [min(per_group, max(len(outside) // 5, 1))]
    else:
        counts = [per_group] * len(groups)
    drawn = _draw(groups, counts, [seed, _VALIDATION])
    _refuse_swallowed(source, database, drawn)
    return drawn


def _refuse_swallowed(source: Source, database: np.ndarray, validation: np.ndarray) -> None:
    """Refuse validation queries that leave nothing to find: a class without other images."""
    groups = _groups(source, database)
    swallowed = [
        c for c, group in enumerate(groups) if len(group) and np.isin(group, validation).all()
    ]
    if swallowed:
        c = min(swallowed, key=lambda c: len(groups[c]))
        what = source.name if source.multi_label else f"class {source.class_names[c]!r}"
        raise UserError(
            f"validation would take all {len(groups[c])} database images of {what};"
            f" lower validation_per_class to at most {len(groups[c]) - 1}, or add images"
        )


def _without_copies(indices: np.ndarray, digests: Digests | None) -> np.ndarray:
    """Return the images whose content no other of them has."""
    if digests is None:
        return indices
    contents = digests(indices)
    times = Counter(contents)
    return indices[[times[content] == 1 for content in contents]]


def _described(
    source: Source,
    query: np.ndarray,
    imbalance_factor: float | None,
    n_max: int | None,
    protocol: Protocol | None,
) -> str:
    if protocol is not None:
        return protocol.name
    train = "as given" if imbalance_factor is None else f"IF {imbalance_factor:g} n_max {n_max}"
    drawn = "given" if given_query(source) is not None else "drawn"
    return f"train {train}; {len(query)} {drawn} queries"
