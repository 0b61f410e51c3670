"""The order in which images are seen: batches of image indices."""

import numpy as np


def uniform_batches(
    indices: np.ndarray, batch_size: int, seed: int, epoch: int, least: int = 2
) -> list[np.ndarray]:
    """Return the indices once each, shuffled by (seed, epoch) and cut into batches.

    A last batch of fewer than `least` images, too few for batch statistics, joins the one before.
    """
    rng = np.random.default_rng([seed, epoch])
    batches = evaluation_batches(rng.permutation(indices), batch_size)
    if len(batches) > 1 and len(batches[-1]) < least:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches


def class_aware_batches(
    indices: np.ndarray, membership: np.ndarray, batch_size: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """Return ceil(len(indices) / batch_size) full batches in which classes are equally frequent.

    Class-aware sampling (Shen et al., ECCV 2016, as in OLTR): the classes are gone through in
    rounds, each in a random order, and a class gives the next image of its own shuffled list,
    which is reshuffled when it runs out. Classes without images are passed over.

    membership: (n, C) bool over all images of the source; `indices` select its rows.
    """
    indices = np.asarray(indices)
    if len(indices) == 0:
        return []
    rng = np.random.default_rng([seed, epoch])
    num_batches = -(-len(indices) // batch_size)
    members = [indices[column] for column in membership[indices].T if column.any()]
    rounds = -(-num_batches * batch_size // len(members))
    streams = np.stack(
        [
            np.concatenate([rng.permutation(own) for _ in range(-(-rounds // len(own)))])[:rounds]
            for own in members
        ]
    )
    orders = rng.permuted(np.tile(np.arange(len(members)), (rounds, 1)), axis=1)
    sequence = streams[orders, np.arange(rounds)[:, None]].ravel()
    return evaluation_batches(sequence[: num_batches * batch_size], batch_size)


def evaluation_batches(indices: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Return the indices in their order, cut into batches; the last may be smaller."""
    indices = np.asarray(indices)
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
