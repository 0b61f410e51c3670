"""The discrete update is the paper's formula on the dense S, and never raises the objective."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from engine import alternate_codes
from engine.alternate_codes import Groups, database_view, make_sample, update_codes

N, M, Q, C = 61, 14, 6, 5
GAMMA = 3.0


def _problem(kind, seed=0):
    """Labels, a sample of rows, network outputs and codes."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "single":
        labels = torch.randint(0, C, (N,), generator=generator)
    else:
        labels = (torch.rand(N, C, generator=generator) < 0.3).to(torch.uint8)
        labels[0] = 0  # an image without labels is similar to none
    rows = np.sort(np.random.default_rng(seed).choice(N, M, replace=False))
    outputs = torch.tanh(torch.randn(M, Q, generator=generator))
    codes = torch.randint(0, 2, (N, Q), generator=generator).to(torch.int8) * 2 - 1
    return labels, rows, outputs, codes


def _dense(labels, rows, dissimilar="auto"):
    """S (m, N) by a plain loop over pairs."""
    n = len(labels)
    share = torch.zeros(len(rows), n, dtype=torch.bool)
    for i, row in enumerate(rows):
        for j in range(n):
            both = labels[row] == labels[j] if labels.ndim == 1 else labels[row] & labels[j]
            share[i, j] = bool(both.any())
    r = float(share.sum()) / float((~share).sum()) if dissimilar == "auto" else dissimilar
    return torch.where(share, 1.0, -r).double()


def _formula(codes, s, outputs, rows, gamma, sweeps=1):
    """V_k = -sgn(2 V̂ Ûᵀ U_k + Q_k) with matrices, sgn(0) = +1."""
    v, u = codes.double().clone(), outputs.double()
    u_bar = torch.zeros_like(v)
    u_bar[rows] = u
    q = -2 * v.shape[1] * s.T @ u - 2 * gamma * u_bar
    for k in [*range(v.shape[1])] * sweeps:
        kept = [each for each in range(v.shape[1]) if each != k]
        x = 2 * v[:, kept] @ u[:, kept].T @ u[:, k] + q[:, k]
        v[:, k] = -torch.where(x >= 0, 1.0, -1.0)
    return v.to(torch.int8)


def _objective(codes, s, outputs, rows, gamma):
    v, u = codes.double(), outputs.double()
    pairs = (u @ v.T - v.shape[1] * s).square().sum()
    return float(pairs + gamma * (v[rows] - u).square().sum())


@pytest.mark.parametrize("block", [4, 7, 4096])
@pytest.mark.parametrize("sweeps", [1, 3])
@pytest.mark.parametrize("kind", ["single", "multi"])
def test_an_update_is_the_papers_formula_whatever_the_block(kind, sweeps, block, monkeypatch):
    for name in ("BLOCK", "CPU_ROWS", "GPU_ROWS", "BITS"):
        monkeypatch.setattr(alternate_codes, name, block)
    labels, rows, outputs, codes = _problem(kind)
    groups = Groups(labels, C)
    expected = _formula(codes, _dense(labels, rows), outputs, rows, GAMMA, sweeps)
    sample = make_sample(groups, rows, "auto")
    update_codes(codes, groups, sample, outputs, GAMMA, sweeps=sweeps)
    assert torch.equal(codes, expected)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["single", "multi"])
def test_the_objective_never_rises_and_no_one_bit_lowers_it_further(kind, seed):
    labels, rows, outputs, codes = _problem(kind, seed)
    groups, s = Groups(labels, C), _dense(labels, rows)
    sample = make_sample(groups, rows, "auto")
    values = [_objective(codes, s, outputs, rows, GAMMA)]
    for _ in range(12):
        update_codes(codes, groups, sample, outputs, GAMMA)
        values.append(_objective(codes, s, outputs, rows, GAMMA))
    assert all(after <= before * (1 + 1e-6) for before, after in pairwise(values))
    assert values[-1] < values[0]
    for row, bit in [(0, 0), (int(rows[0]), 2), (N - 1, Q - 1)]:
        flipped = codes.clone()
        flipped[row, bit] *= -1
        assert _objective(flipped, s, outputs, rows, GAMMA) >= values[-1] * (1 - 1e-6)


@pytest.mark.parametrize("dissimilar", ["auto", 0.0, 1.5])
@pytest.mark.parametrize("kind", ["single", "multi"])
def test_the_networks_view_is_that_of_the_dense_matrices(kind, dissimilar):
    labels, rows, _, codes = _problem(kind, 3)
    groups, s = Groups(labels, C), _dense(labels, rows, dissimilar)
    found = database_view(groups, make_sample(groups, rows, dissimilar), codes)
    v = codes.double()
    torch.testing.assert_close(found["gram"].double(), v.T @ v)
    torch.testing.assert_close(found["similar_sum"].double(), s @ v, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found["squares"].double(), s.square().sum(1), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("few", [0, 64])
def test_sums_over_groups_are_those_of_a_loop(few, monkeypatch):
    monkeypatch.setattr(alternate_codes, "FEW_GROUPS", few)
    monkeypatch.setattr(alternate_codes, "GPU_ROWS", 7)
    labels, _, _, codes = _problem("single", 6)
    found = Groups(labels, C + 1).sums(codes)
    for c in range(C + 1):
        assert found[c].tolist() == codes[labels == c].sum(0).tolist()


def test_rows_before_the_first_keep_their_codes_and_the_others_are_the_formulas():
    labels, rows, outputs, codes = _problem("single", 4)
    groups, before = Groups(labels, C), codes.clone()
    expected = _formula(codes, _dense(labels, rows), outputs, rows, GAMMA)
    update_codes(codes, groups, make_sample(groups, rows, "auto"), outputs, GAMMA, first=40)
    assert torch.equal(codes[:40], before[:40])
    assert torch.equal(codes[40:], expected[40:])


def test_codes_may_start_from_nothing():
    labels, rows, outputs, codes = _problem("single", 5)
    codes.zero_()
    groups = Groups(labels, C)
    update_codes(codes, groups, make_sample(groups, rows, "auto"), outputs, GAMMA)
    assert set(codes.unique().tolist()) == {-1, 1}


def test_all_pairs_similar_have_a_finite_ratio():
    labels = torch.zeros(9, dtype=torch.int64)
    sample = make_sample(Groups(labels, 2), np.arange(3), "auto")
    assert torch.isfinite(sample.ratio)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["single", "multi"])
def test_a_gpu_finds_the_same_codes(kind):
    labels, rows, outputs, codes = _problem(kind)
    on_gpu = codes.cuda()
    for values, told, u in ((codes, labels, outputs), (on_gpu, labels.cuda(), outputs.cuda())):
        groups = Groups(told, C)
        update_codes(values, groups, make_sample(groups, rows, "auto"), u, GAMMA)
    assert torch.equal(on_gpu.cpu(), codes)
