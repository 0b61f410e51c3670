import numpy as np
import pytest
import torch

from models import pairwise_head
from utils.errors import UserError


def head(**continuation):
    torch.manual_seed(0)
    return pairwise_head.create_model(in_features=5, feature_dim=7, code_length=4, **continuation)


def batch(count=6):
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(1))


def test_codes_equal_the_equation_computed_image_by_image():
    model = head(growth=3.0, power=1.0, stages=3)
    model.set_progress(2, 3)  # β = 1 + 3 · 2/3
    state = {key: value.double().numpy() for key, value in model.state_dict().items()}
    outputs = model(batch())
    for i, x in enumerate(batch().double().numpy()):
        v = np.maximum(state["feature_layer.weight"] @ x + state["feature_layer.bias"], 0)
        z = state["hash_layer.weight"] @ v + state["hash_layer.bias"]
        expected = {"features": v, "codes": np.tanh(3 * z)}
        assert outputs.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(outputs[name][i].detach().numpy(), value, atol=1e-5)


def test_the_default_schedule_is_the_released_one_over_10000_steps():
    model, beta = head(), 1.0
    for step in range(10_000):
        if step % 200 == 0:
            beta = (1 + 0.005 * step) ** 0.5
        model.set_progress(step, 10_000)
        assert model.beta.item() == pytest.approx(beta, rel=1e-6), step


def test_beta_stays_within_a_stage_and_grows_between_stages():
    model = head(stages=4)
    betas = [model.beta_at(epoch, 8) for epoch in range(8)]
    assert betas[0] == 1
    assert betas[::2] == betas[1::2]
    assert sorted(set(betas)) == betas[::2]


def test_stages_shorter_than_an_epoch_are_passed_over():
    model = head(growth=50.0, power=0.5, stages=50)
    assert [model.beta_at(epoch, 5) for epoch in range(5)] == [
        pytest.approx((1 + 10 * epoch) ** 0.5) for epoch in range(5)
    ]


def test_growth_zero_keeps_beta_at_one():
    model = head(growth=0.0)
    assert {model.beta_at(epoch, 100) for epoch in range(100)} == {1.0}


def test_beta_changes_in_place_and_is_not_saved():
    model = head()
    buffer, place = model.beta, model.beta.data_ptr()
    model.set_progress(7, 10)
    assert model.beta is buffer and model.beta.data_ptr() == place
    assert model.beta.item() > 1
    assert "beta" not in model.state_dict()


def test_beta_never_changes_a_sign():
    model = head()
    before = model(batch())["codes"].sign()
    model.set_progress(99, 100)
    assert torch.equal(model(batch())["codes"].sign(), before)


def test_codes_of_bf16_are_float32_and_keep_a_slope_where_bf16_would_not():
    model = head()
    with torch.no_grad():
        model.hash_layer.weight.zero_()
        model.hash_layer.bias.fill_(5)  # tanh(5) rounds to 1 in bf16
    with torch.autocast("cpu", torch.bfloat16):
        codes = model(batch())["codes"]
    assert codes.dtype == torch.float32
    codes.sum().backward()
    assert (model.hash_layer.bias.grad > 0).all()


@pytest.mark.parametrize("wrong", [{"growth": -1.0}, {"power": -0.5}, {"stages": 0}])
def test_a_schedule_that_cannot_be_is_a_user_error(wrong):
    with pytest.raises(UserError, match="expected growth and power of at least 0"):
        head(**wrong)
