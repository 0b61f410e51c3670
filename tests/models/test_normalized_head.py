import numpy as np
import torch

from models import normalized_head


def head():
    torch.manual_seed(0)
    return normalized_head.create_model(in_features=5, feature_dim=7, code_length=4)


def batch(count=6):
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(1))


def test_outputs_equal_the_equations_in_training():
    model = head()
    state = {key: value.double().numpy().copy() for key, value in model.state_dict().items()}
    outputs = model(batch())
    x = batch().double().numpy()
    features = np.maximum(x @ state["feature_layer.weight"].T + state["feature_layer.bias"], 0)
    z = features @ state["hash_layer.weight"].T
    codes = (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5)
    assert outputs.keys() == {"features", "codes"}
    np.testing.assert_allclose(outputs["features"].detach().numpy(), features, atol=1e-5)
    np.testing.assert_allclose(outputs["codes"].detach().numpy(), codes, atol=1e-4)


def test_in_evaluation_an_images_code_does_not_depend_on_its_batch():
    model = head()
    model(batch(50))
    model.eval()
    together = model(batch())["codes"]
    alone = torch.cat([model(batch()[i : i + 1])["codes"] for i in range(6)])
    torch.testing.assert_close(together, alone)
