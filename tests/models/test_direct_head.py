import numpy as np
import torch

from models import direct_head


def head(bits=4):
    torch.manual_seed(0)
    return direct_head.create_model(5, 7, bits, 3)


def batch(count=6):
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(1))


def test_outputs_equal_the_equations_computed_image_by_image():
    model = head()
    state = {key: value.double().numpy() for key, value in model.state_dict().items()}
    outputs = model(batch())
    for i, x in enumerate(batch().double().numpy()):
        v = np.maximum(state["feature_layer.weight"] @ x + state["feature_layer.bias"], 0)
        h = np.tanh(state["hash_layer.weight"] @ v + state["hash_layer.bias"])
        logits = state["classifier.weight"] @ h + state["classifier.bias"]
        expected = {"features": v, "codes": h, "logits": logits}
        assert outputs.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(outputs[name][i].detach().numpy(), value, atol=1e-5)


def test_shapes_follow_the_sizes():
    outputs = head(bits=12)(batch(2))
    assert outputs["features"].shape == (2, 7)
    assert outputs["codes"].shape == (2, 12)
    assert outputs["logits"].shape == (2, 3)


def test_codes_lie_between_minus_one_and_one():
    assert head()(batch(500))["codes"].abs().max() < 1
