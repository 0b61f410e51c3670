import io
import random

import numpy as np
import torch

from utils.seed import epoch_seed, random_states, seed_everything, set_random_states


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


def test_every_library_goes_on_from_a_state_that_was_stored_as_plain_values():
    cpu = torch.device("cpu")
    seed_everything(5)
    random.gauss(0, 1)  # of two normal numbers the second is part of the state
    np.random.randn()  # noqa: NPY002
    stored = io.BytesIO()
    torch.save(random_states(cpu), stored)
    expected = *draws(), random.gauss(0, 1), np.random.randn()  # noqa: NPY002
    seed_everything(6)
    stored.seek(0)
    set_random_states(torch.load(stored, weights_only=True), cpu)
    assert (*draws(), random.gauss(0, 1), np.random.randn()) == expected  # noqa: NPY002
