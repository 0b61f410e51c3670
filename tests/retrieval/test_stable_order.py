"""The stable order scores the same with numba, without it, and however it is cut into tiles."""

import pytest
import torch

from retrieval import stable_order
from retrieval.hamming import count_pairing, pair_up


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("bits", [3, 70])
def test_numba_and_tiles_change_nothing(make_case, monkeypatch, bits, multi):
    pairing = pair_up(*make_case(queries=6, database=90, bits=bits, classes=70, multi=multi))
    counts = count_pairing(pairing).counts
    cutoffs = [1, 8, 40, 90]
    fast = stable_order.stable_rank_sums(pairing, counts, cutoffs)
    monkeypatch.setattr(stable_order, "stable_numba", None)
    whole = stable_order.stable_rank_sums(pairing, counts, cutoffs)
    monkeypatch.setattr(stable_order, "TILE_COLUMNS", 17)
    monkeypatch.setattr(stable_order, "TILE_PAIRS", 40)
    tiled = stable_order.stable_rank_sums(pairing, counts, cutoffs)
    for name in vars(fast):
        for other in (whole, tiled):
            torch.testing.assert_close(
                getattr(fast, name), getattr(other, name), rtol=1e-12, atol=1e-12
            )
