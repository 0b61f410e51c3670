"""The published LTHNet computes what the method's formulas say, in float64, line by line."""

import pytest
import torch
import torchvision

from models.meta_embedding_head import create_model as create_head
from models.published_lthnet import create_model
from utils.errors import UserError

SIZES = {"feature_dim": 12, "code_length": 8, "num_classes": 5, "memory_rows": 10}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = create_model(**SIZES, arch="resnet18").double().eval()
    for layer in (network.fc_hallucinator, network.fc_selector):
        layer.weight.data.mul_(20)  # so that the memory matters
    network.set_memory(5 * torch.rand(10, 12).double())
    return network


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 64, 64, dtype=torch.float64)


def pooled(state, images):
    """torchvision's ResNet-18 up to its classifier, from the numbered children of `state`."""
    names = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool"]
    whole = torchvision.models.resnet18().double().eval()
    renamed = {
        ".".join([names[int(key.split(".")[1])], *key.split(".")[2:]]): value
        for key, value in state.items()
        if key.startswith("features.")
    }
    whole.fc = torch.nn.Identity()
    whole.load_state_dict(renamed)
    with torch.no_grad():
        return whole(images)


@pytest.mark.parametrize("meta_embedding", [True, False])
def test_codes_are_those_of_the_formulas(network, images, meta_embedding, monkeypatch):
    monkeypatch.setattr(network, "meta_embedding", meta_embedding)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        found = network(images)
    for row, x in enumerate(pooled(state, images)):
        v = (state["fc.weight"] @ x + state["fc.bias"]).clamp(min=0)
        if meta_embedding:
            o = state["fc_hallucinator.weight"] @ v + state["fc_hallucinator.bias"]
            o = o.exp() / o.exp().sum()
            memory = sum(o[i] * state["prototypes"][i] for i in range(10))
            e = (state["fc_selector.weight"] @ v + state["fc_selector.bias"]).tanh()
            embedding = v + e * memory
        else:
            embedding = v
        h = (state["hash_layer.weight"] @ embedding + state["hash_layer.bias"]).tanh()
        logits = state["classifier.weight"] @ h + state["classifier.bias"]
        torch.testing.assert_close(found["features"][row], v)
        torch.testing.assert_close(found["codes"][row], h)
        torch.testing.assert_close(found["logits"][row], logits)


def test_the_memory_changes_the_codes(network, images, monkeypatch):
    with torch.no_grad():
        enriched = network(images)["codes"]
        monkeypatch.setattr(network, "meta_embedding", False)
        assert (network(images)["codes"] - enriched).abs().max() > 0.01


def test_names_are_those_of_the_authors_checkpoints():
    with torch.device("meta"):
        names = create_model(**SIZES).state_dict().keys()
    heads = {"fc", "fc_hallucinator", "fc_selector", "hash_layer", "classifier"}
    assert {name.split(".")[0] for name in names} == {"features", "prototypes", *heads}
    assert {name.split(".")[1] for name in names if name.startswith("features.")} == set("014567")
    blocks = {name.split(".")[2] for name in names if name.startswith("features.6.")}
    assert blocks == set("012345")  # ResNet-34 has six blocks in its third stage
    with torch.device("meta"):
        head = create_head(512, **SIZES).state_dict()
    assert len([name for name in names if not name.startswith("features")]) == len(head)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"memory_rows": 0}, "memory is off"), ({"arch": "vgg16"}, "expected a ResNet")],
)
def test_what_cannot_be_built_is_a_line(changes, message):
    with pytest.raises(UserError, match=message):
        create_model(**{**SIZES, **changes})
