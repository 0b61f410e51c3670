"""Devices, precision and passes over many images."""

import numpy as np
import pytest
import torch
from small_config import make_config

from engine.coding import encode
from engine.model import choose_device, choose_precision, collect_outputs
from engine.run import open_run
from retrieval.codes import binarize, pack
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


def test_mirrored_outputs_are_the_mean_over_an_image_and_its_mirror_image(tmp_path):
    run = open_run(make_config(tmp_path))
    indices = np.arange(10)
    found = collect_outputs(
        run.model, run.dataset, indices, run.augmentation, run.precision, ("codes",), 4, True
    )["codes"]
    images = torch.cat([batch for batch, _ in run.dataset.batches([indices], run.augmentation)])
    run.model.eval()
    with torch.no_grad():
        sides = [run.model(batch)["codes"] for batch in (images, torch.flip(images, [3]))]
    torch.testing.assert_close(found, (sides[0] + sides[1]) / 2)
    assert not torch.allclose(sides[0], sides[1])


def test_a_run_that_mirrors_codes_the_mean(tmp_path):
    plain, mirrored = (
        open_run(make_config(tmp_path, mirror_codes=value)) for value in (False, True)
    )
    indices = np.arange(40)
    outputs = collect_outputs(
        mirrored.model, mirrored.dataset, indices, mirrored.augmentation, mirrored.precision,
        ("codes", "logits"), 40, True,
    )  # fmt: skip
    encoded = encode(mirrored, indices)
    assert np.array_equal(encoded.codes, pack(binarize(outputs["codes"].numpy())))
    np.testing.assert_array_equal(encoded.logits, outputs["logits"].numpy())
    assert not np.allclose(encoded.logits, encode(plain, indices).logits, atol=1e-6)
