"""Heads of several code lengths: flat ones share the features, cascaded ones feed the shorter."""

import pytest
import torch

from models import cascade_head, flat_head
from utils.errors import UserError

LENGTHS = [4, 8, 16]


def _inputs():
    return torch.randn(3, 12, generator=torch.Generator().manual_seed(0))


def test_a_flat_head_maps_the_features_to_each_length():
    head = flat_head.create_model(12, LENGTHS)
    outputs = head(_inputs())
    assert list(outputs) == ["codes_4", "codes_8", "codes_16"]
    for q in LENGTHS:
        layer = head.layers[f"codes_{q}"]
        expected = torch.tanh(_inputs() @ layer.weight.T + layer.bias)
        torch.testing.assert_close(outputs[f"codes_{q}"], expected)


def test_a_flat_head_of_one_length_gives_codes():
    outputs = flat_head.create_model(12, 8)(_inputs())
    assert {name: each.shape for name, each in outputs.items()} == {"codes": (3, 8)}


@pytest.mark.parametrize("lengths", [LENGTHS, [16, 4, 8]])
def test_each_shorter_code_of_a_cascade_comes_from_the_longer_ones_pre_activation(lengths):
    head = cascade_head.create_model(12, lengths)
    outputs = head(_inputs())
    values = _inputs()
    for q in (16, 8, 4):
        layer = head.layers[f"codes_{q}"]
        values = values @ layer.weight.T + layer.bias
        torch.testing.assert_close(outputs[f"codes_{q}"], torch.tanh(values))


def test_a_cascade_of_one_length_is_refused():
    with pytest.raises(UserError, match="several code lengths"):
        cascade_head.create_model(12, [8])


@pytest.mark.parametrize("module", [flat_head, cascade_head])
def test_codes_are_float32_under_autocast(module):
    head = module.create_model(12, LENGTHS)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = head(_inputs())
    assert {each.dtype for each in outputs.values()} == {torch.float32}
