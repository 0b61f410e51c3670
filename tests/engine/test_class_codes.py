"""Codes of whole classes are the best that the objective has."""

from itertools import product

import numpy as np
import pytest
import torch

from engine import class_codes as module
from engine.class_codes import class_codes


def objective(codes, sizes, ratio, bits):
    total = 0.0
    for c, size in enumerate(sizes):
        for d, other in enumerate(sizes):
            similar = 1.0 if c == d else -ratio
            total += size * other * (float(codes[c] @ codes[d]) - bits * similar) ** 2
    return total


@pytest.mark.parametrize(
    ("sizes", "bits", "ratio"),
    [([5, 5, 5], 2, 0.5), ([100, 10, 3, 1], 3, 0.2), ([1, 2, 3, 4, 5], 2, 1.0), ([7, 7], 4, 0.1)],
)
def test_no_other_codes_are_better(sizes, bits, ratio):
    every = [np.array(code) for code in product((-1.0, 1.0), repeat=bits)]
    best = min(objective(codes, sizes, ratio, bits) for codes in product(every, repeat=len(sizes)))
    found = class_codes(torch.tensor(sizes), bits, ratio, seed=0)
    assert found.dtype == torch.int8 and set(found.unique().tolist()) <= {-1, 1}
    assert objective(found.double().numpy(), sizes, ratio, bits) == pytest.approx(best)


def test_of_ten_classes_in_four_bits_at_most_two_share_a_code():
    found = class_codes(torch.full((10,), 5900), 4, 1 / 9, seed=0)
    assert len(found.unique(dim=0)) >= 9


def test_fixed_classes_keep_their_codes_and_the_others_make_the_best_of_it():
    sizes, ratio, bits = [4, 4, 4, 2], 1 / 3, 3
    fixed = torch.full((4, bits), torch.nan)
    fixed[0], fixed[2] = torch.tensor([1.0, 1, 1]), torch.tensor([0.5, -1, -0.25])
    found = class_codes(torch.tensor(sizes), bits, ratio, 0, fixed)
    assert found[0].tolist() == [1, 1, 1] and found[2].tolist() == [1, -1, -1]

    def with_others(one, other):
        return np.stack([fixed[0].numpy(), one, fixed[2].numpy(), other])

    every = [np.array(code) for code in product((-1.0, 1.0), repeat=bits)]
    best = min(objective(with_others(a, b), sizes, ratio, bits) for a in every for b in every)
    own = with_others(found[1].double().numpy(), found[3].double().numpy())
    assert objective(own, sizes, ratio, bits) == pytest.approx(best)


def test_the_seed_names_the_codes(monkeypatch):
    monkeypatch.setattr(module, "STARTS", 1)
    sizes = torch.full((12,), 3)
    one, same, other = (class_codes(sizes, 8, 0.1, seed) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
