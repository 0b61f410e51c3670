"""Kernels can be imported where Triton is not installed, and start early where a GPU can."""

import runpy
import sys
from types import FunctionType

import pytest
import torch

from data import crop_kernels
from models import batch_norm_kernels, depthwise_conv_kernels
from utils import optional_triton


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (batch_norm_kernels, "transform"),
        (depthwise_conv_kernels, "convolve"),
        (crop_kernels, "resize_across"),
    ],
)
def test_kernels_are_plain_functions_without_triton(monkeypatch, module, name):
    for hidden in ("triton", "triton.language"):
        monkeypatch.setitem(sys.modules, hidden, None)
    without = runpy.run_path(optional_triton.__file__)
    assert without["triton"] is None
    for each in ("triton", "tl"):
        monkeypatch.setattr(optional_triton, each, without[each])
    assert type(runpy.run_path(module.__file__)[name]) is FunctionType


@pytest.mark.parametrize(("channels", "vector"), [(3, 1), (8, 8), (20, 1), (24, 8)])
def test_channels_are_groups_of_what_a_thread_reads_at_once(channels, vector):
    sizes = optional_triton.channel_groups(channels)
    assert sizes == {"groups": channels // vector, "vector": vector}


def test_kernels_run_on_a_gpu_only(monkeypatch):
    assert not optional_triton.runs_kernels(torch.empty(1))
    monkeypatch.setattr(optional_triton, "DEVICE", "cpu")
    monkeypatch.setattr(optional_triton, "triton", object())
    monkeypatch.setattr(optional_triton, "_launches", lambda device: True)
    assert optional_triton.runs_kernels(torch.empty(1))
    monkeypatch.setattr(optional_triton, "triton", None)
    assert not optional_triton.runs_kernels(torch.empty(1))


def test_where_no_kernel_can_be_compiled_none_runs_after_one_warning(monkeypatch, caplog):
    class Kernel:
        def __getitem__(self, grid):
            raise RuntimeError("Failed to find\nC compiler")

    monkeypatch.setattr(optional_triton, "DEVICE", "cpu")
    monkeypatch.setattr(optional_triton, "triton", object())
    monkeypatch.setattr(optional_triton, "_touch", Kernel())
    optional_triton._launches.cache_clear()
    assert not optional_triton.runs_kernels(torch.empty(1))
    assert not optional_triton.runs_kernels(torch.empty(2))
    optional_triton._launches.cache_clear()
    assert [record.getMessage() for record in caplog.records] == [
        "cpu runs without kernels of our own, slower: Failed to find C compiler"
    ]


def test_kernels_start_early_on_gpus_that_can(monkeypatch):
    pytest.importorskip("triton")
    gpu = torch.device("cuda", 0)
    capability = (9, 0)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    decide = optional_triton.early_launch.__wrapped__
    assert decide(gpu) == {"early": True, "launch_pdl": True}
    assert decide(torch.device("cpu")) == {"early": False}
    capability = (8, 0)
    assert decide(gpu) == {"early": False}
    capability = (10, 0)
    assert decide(gpu)["early"]
    monkeypatch.setattr(torch.version, "cuda", None)  # AMD's
    assert decide(gpu) == {"early": False}
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert decide(gpu) == {"early": False}
    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.setattr(optional_triton, "triton", None)
    assert decide(gpu) == {"early": False}
