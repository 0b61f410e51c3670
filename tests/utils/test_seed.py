import random

import numpy as np
import torch

from utils.seed import epoch_seed, seed_everything


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def test_the_same_seed_gives_the_same_numbers_in_every_library():
    seed_everything(5)
    first = draws()
    seed_everything(5)
    assert draws() == first


def test_another_seed_gives_other_numbers_in_every_library():
    seed_everything(5)
    first = draws()
    seed_everything(6)
    assert all(a != b for a, b in zip(first, draws(), strict=True))


def test_epoch_seeds_differ_over_epochs_and_seeds():
    seeds = [epoch_seed(seed, epoch) for seed in range(10) for epoch in range(300)]
    assert len(set(seeds)) == len(seeds)


def test_an_epoch_seed_depends_on_nothing_drawn_before():
    before = epoch_seed(3, 7)
    torch.rand(10)
    np.random.rand(10)  # noqa: NPY002
    assert epoch_seed(3, 7) == before


def test_epoch_seeds_are_accepted_by_torch_and_numpy():
    for epoch in range(100):
        seed = epoch_seed(2**31, epoch)
        torch.Generator().manual_seed(seed)
        np.random.default_rng(seed)
        seed_everything(seed)
