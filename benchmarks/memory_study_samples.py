"""Ways to choose a class's samples for the memory, beside models/memory.py's determinantal one."""

from collections.abc import Callable

import torch
from sklearn.cluster import KMeans
from torch import Tensor

Choose = Callable[[Tensor, Tensor, int, int], Tensor]  # as models.memory.choose_samples


def random_samples(features: Tensor, labels: Tensor, num_classes: int, k: int) -> Tensor:
    """k rows a class at random, (C, k), in place of the determinantal ones; -1 where there is none.

    The draw is of torch's own generator, which the study seeds.
    """
    chosen = torch.full((num_classes, k), -1)
    for number in range(num_classes):
        rows = torch.nonzero(labels == number).flatten()
        rows = rows[torch.randperm(len(rows))[:k]]
        chosen[number, : len(rows)] = rows
    return chosen


def k_means_samples(features: Tensor, labels: Tensor, num_classes: int, k: int) -> Tensor:
    """The rows nearest to k centres within each class, (C, k); -1 where there are fewer rows."""
    chosen = torch.full((num_classes, k), -1)
    for number in range(num_classes):
        rows = torch.nonzero(labels == number).flatten()
        if len(rows) < k:
            chosen[number, : len(rows)] = rows
            continue
        found = KMeans(k, n_init=1, random_state=0).fit(features[rows].numpy())
        centres = torch.from_numpy(found.cluster_centers_).to(features.dtype)
        chosen[number] = rows[torch.cdist(centres, features[rows]).argmin(1)]
    return chosen
