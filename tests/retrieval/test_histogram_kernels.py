"""Every fast kernel counts exactly what plain torch counts."""

import os
import subprocess
import sys

import pytest
import torch

from retrieval import hamming, histogram_torch

CASES = [(1, False), (8, True), (64, False), (65, True), (130, False), (256, True)]


def _fields(pairing):
    return pairing.query, pairing.database, pairing.code_length, pairing.labels


@pytest.mark.parametrize(("bits", "multi"), CASES)
def test_numba_counts_as_plain_torch(make_case, monkeypatch, bits, multi):
    kernel = pytest.importorskip("retrieval.histogram_numba")
    case = make_case(queries=9, database=700, bits=bits, classes=70, multi=multi)
    fields = _fields(hamming.pair_up(*case))
    plain = histogram_torch.count_distances(*fields)
    assert torch.equal(kernel.count_distances(*fields), plain)
    monkeypatch.setattr(kernel, "TILE_ITEMS", 50)
    assert torch.equal(kernel.count_distances(*fields), plain)


def test_a_kernel_that_is_missing_or_too_small_gives_way(make_case, monkeypatch):
    pairing = hamming.pair_up(*make_case(bits=20))
    whole = hamming.count_pairing(pairing).counts
    monkeypatch.setattr(hamming, "histogram_numba", None)
    assert hamming.pick_kernel(pairing) is histogram_torch
    assert torch.equal(hamming.count_pairing(pairing).counts, whole)
    wide = hamming.pair_up(*make_case(bits=40_000, queries=1, database=3))
    monkeypatch.undo()
    assert hamming.pick_kernel(wide) is histogram_torch


TRITON = """
import numpy as np, torch
from retrieval import hamming, histogram_torch, histogram_triton
for bits, multi in {cases}:
    generator = np.random.default_rng(bits)
    codes = [generator.choice([-1, 1], (n, bits)) for n in (5, 1500)]
    if multi:
        labels = [generator.random((n, 70)) < 0.04 for n in (5, 1500)]
    else:
        labels = [generator.integers(0, 9, n) for n in (5, 1500)]
    pairing = hamming.pair_up(*codes, *labels)
    fields = pairing.query, pairing.database, pairing.code_length, pairing.labels
    histogram_triton.SLICE = 1024
    counts = histogram_triton.count_distances(*fields)
    assert torch.equal(counts, histogram_torch.count_distances(*fields)), (bits, multi)
"""


def test_triton_counts_as_plain_torch():
    pytest.importorskip("triton")
    cases = [case for case in CASES if case != (256, True)]  # more counts than it takes
    environment = os.environ | {"TRITON_INTERPRET": "1"}  # on the CPU; read when it is imported
    run = subprocess.run(
        [sys.executable, "-c", TRITON.format(cases=cases)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


MEMORY = """
import resource
import numpy as np
from retrieval.metrics import evaluate
generator = np.random.default_rng(0)
def problem(queries, database):
    sizes = (queries, database)
    codes = [generator.integers(0, 256, (n, 8), dtype=np.uint8) for n in sizes]
    labels = [generator.integers(0, 50, n) for n in sizes]
    return *codes, *labels
evaluate(*problem(10, 100), code_length=64)
large = problem(4000, 300_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
evaluate(*large, code_length=64)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_is_a_fraction_of_one_byte_a_pair():
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 300  # MiB; one byte a pair would be 1,144


def test_without_a_c_compiler_a_gpu_counts_by_torch(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert not hamming.builds_kernels.__wrapped__()
    (tmp_path / "gcc").touch(mode=0o755)
    assert hamming.builds_kernels.__wrapped__()
