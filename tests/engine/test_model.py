"""Devices, precision and passes over many images."""

import numpy as np
import pytest
import torch
from small_config import make_config

from engine.model import choose_device, choose_precision, collect_outputs
from engine.run import open_run
from utils.errors import UserError


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_asked_for_and_absent_is_one_line(tmp_path):
    with pytest.raises(UserError, match="device is 'cuda', but torch finds no CUDA device"):
        choose_device(make_config(tmp_path, device="cuda").training_opt)


def test_bf16_is_the_default_on_a_gpu_only(tmp_path):
    options = make_config(tmp_path).training_opt
    assert not choose_precision(options, torch.device("cpu")).bf16
    assert choose_precision(options, torch.device("cuda")).bf16
    options.precision = "bf16"
    assert choose_precision(options, torch.device("cpu")).bf16


def test_outputs_do_not_depend_on_the_batch_size_and_keep_the_mode(tmp_path):
    run = open_run(make_config(tmp_path))
    run.model.train()
    indices = np.arange(20)[::-1].copy()
    outputs = [
        collect_outputs(
            run.model, run.dataset, indices, run.augmentation, run.precision, ("codes",), size
        )["codes"]
        for size in (3, 20)
    ]
    torch.testing.assert_close(outputs[0], outputs[1])
    assert run.model.training
