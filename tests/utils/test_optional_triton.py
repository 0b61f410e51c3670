"""Layers with kernels can be imported where Triton is not installed."""

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
    assert optional_triton.runs_kernels(torch.empty(1))
    monkeypatch.setattr(optional_triton, "triton", None)
    assert not optional_triton.runs_kernels(torch.empty(1))
