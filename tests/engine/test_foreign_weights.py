"""Other projects' weights give the features and codes that they give there."""

import argparse
import logging
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from small_config import make_config
from torch import nn

from engine.checkpoint import load_checkpoint, load_initial_weights, load_networks
from engine.experiment import test_only as run_test_only
from engine.foreign_weights import recognise, renaming_rules
from engine.run import open_run
from models.backbone import create_model as create_backbone
from models.direct_head import create_model as create_direct
from models.flat_head import create_model as create_flat
from models.meta_embedding_head import create_model as create_meta
from models.published_lthnet import create_model as create_lthnet
from retrieval.codes import load_codes, unpack
from utils.errors import UserError

ARCH = "mobilenet_v3_small"
SIZES = {"feature_dim": 12, "code_length": 8, "num_classes": 5}


@pytest.fixture
def lines():
    """What is logged."""
    found = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    logger = logging.getLogger("long_tail_hashing")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture(scope="module")
def library():
    """A network of torchvision with batch statistics of its own."""
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v3_small(num_classes=7)
    with torch.no_grad():
        network(torch.randn(8, 3, 32, 32))
    return network.eval()


def features_of(library, images):
    """What the library's network feeds to its last linear layer."""
    seen = []
    linear = [module for module in library.modules() if isinstance(module, nn.Linear)][-1]
    hook = linear.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        library(images)
    hook.remove()
    return seen[0]


def sequential(**networks):
    return nn.Sequential(OrderedDict(networks)).eval()


def load(model, values, path, *, safe=False):
    if safe:
        safetensors.torch.save_file({k: v.contiguous() for k, v in values.items()}, path)
    else:
        torch.save(values, path)
    load_networks(model, load_checkpoint(path), path)
    return model


def randomised(state):
    """The same names and shapes with numbers of their own, as after training."""
    generator = torch.Generator().manual_seed(1)
    return {
        key: torch.rand(value.shape, generator=generator) / 8
        if value.is_floating_point()
        else value
        for key, value in state.items()
    }


WRAPPED = {
    "plain": lambda state: state,
    "module": lambda state: {f"module.{key}": value for key, value in state.items()},
    "compiled": lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
    "script": lambda state: {"model": state, "args": argparse.Namespace(lr=1), "epoch": 3},
    "timm": lambda state: {"epoch": 1, "state_dict": {f"model.{k}": v for k, v in state.items()}},
}


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_a_state_dict_of_torchvision_gives_its_features(tmp_path, library, wrapped, lines):
    images = torch.randn(2, 3, 64, 64)
    model = sequential(feat_model=create_backbone(ARCH))
    load(model, WRAPPED[wrapped](library.state_dict()), tmp_path / "x.pth")
    with torch.no_grad():
        assert torch.equal(model(images), features_of(library, images))
    total = len(model[0].state_dict())
    assert f"{total} of {total} tensors matched (state dict of torchvision or timm)" in lines[0]
    assert "→ network.*" in lines[0]
    assert "left out of the file" in lines[0]


@pytest.mark.parametrize("arch", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_safetensors_of_timm_give_their_features(tmp_path, arch):
    library = timm.create_model(arch, num_classes=7).eval()
    images = torch.randn(2, 3, 160, 160)
    model = sequential(feat_model=create_backbone(f"timm/{arch}"))
    load(model, library.state_dict(), tmp_path / "x.safetensors", safe=True)
    with torch.no_grad():
        expected = library.forward_head(library.forward_features(images), pre_logits=True)
        torch.testing.assert_close(model(images), expected)


def test_half_precision_and_files_without_step_counts_load_and_are_told(tmp_path, library, lines):
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in library.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    model = load(sequential(feat_model=create_backbone(ARCH)), state, tmp_path / "x.pth")
    own = model[0].network.state_dict()
    for key, value in state.items():
        if key in own:
            assert torch.equal(own[key], value.float())
    assert "converted float16 to float32" in lines[0]
    assert "not in the file, 0: network (34)" in lines[0]


@pytest.mark.parametrize(
    ("arch", "old"),
    [
        ("densenet121", [(".norm1.", ".norm.1."), (".norm2.", ".norm.2."), (".conv1.", ".conv.1."),
                         (".conv2.", ".conv.2.")]),
        ("vit_b_16", [(".mlp.0.", ".mlp.linear_1."), (".mlp.3.", ".mlp.linear_2.")]),
    ],
)  # fmt: skip
def test_names_that_torchvision_changed_since_are_known(arch, old):
    with torch.device("meta"):
        names = list(create_backbone(arch).network.state_dict())
    file_names = []
    for name in names:
        if "denselayer" in name or ".mlp." in name:
            for new, before in old:
                name = name.replace(new, before)
        file_names.append(name)
    assert file_names != names
    found = recognise({name: torch.zeros(()) for name in file_names}, "x")
    assert [part.removeprefix("backbone.") for part in found.parts] == names


@pytest.fixture(scope="module")
def lthnet():
    """What the authors' code saves, of a smaller network, and the network."""
    torch.manual_seed(0)
    network = create_lthnet(**SIZES, memory_rows=5, arch="resnet18")
    state = network.state_dict()
    for key in ("fc_hallucinator.weight", "fc_selector.weight"):
        state[key] *= 20
    state["prototypes"] += torch.rand(5, 12)
    model = OrderedDict((key, value) for key, value in state.items() if key != "prototypes")
    values = {
        "model": model,
        "prototypes": state["prototypes"].clone(),
        "qB": torch.ones(3, 8),
        "map": torch.tensor(0.3),
        "mapping": {"0": torch.arange(5.0)[0]},
        "beta": 0.99,
    }
    return values, network.eval()


def test_the_published_network_gives_its_codes(tmp_path, lthnet):
    values, network = lthnet
    images = torch.randn(2, 3, 64, 64)
    model = sequential(lthnet=create_lthnet(**SIZES, memory_rows=5, arch="resnet18"))
    load(model, values, tmp_path / "x.pt")
    with torch.no_grad():
        assert torch.equal(model(images)["codes"], network(images)["codes"])


def test_the_published_network_as_backbone_and_head_gives_its_codes(tmp_path, lthnet, lines):
    values, network = lthnet
    images = torch.randn(2, 3, 64, 64)
    backbone = create_backbone("resnet18")
    head = create_meta(512, **SIZES, memory_rows=5)
    model = load(sequential(feat_model=backbone, hash_head=head), values, tmp_path / "x.pt")
    with torch.no_grad():
        torch.testing.assert_close(model(images)["codes"], network(images)["codes"])
    assert "published LTHNet" in lines[0]
    assert "features.4.* → network.layer1.*" in lines[0]
    assert "fc_hallucinator.* → hallucinator.*" in lines[1]
    assert "prototypes → memory" in lines[1]


def test_a_head_without_a_memory_refuses_the_published_one(tmp_path, lthnet):
    model = sequential(
        feat_model=create_backbone("resnet18"), hash_head=create_direct(512, **SIZES)
    )
    with pytest.raises(
        UserError, match=r"published LTHNet, .* unexpected: hallucinator\.weight.*memory"
    ):
        load(model, lthnet[0], tmp_path / "x.pt")


def test_a_test_of_the_published_network_needs_no_split_and_says_so(tmp_path, lthnet, lines):
    values, network = lthnet
    path = tmp_path / "x.pt"
    torch.save(values, path)
    networks = {
        "lthnet": {"def_file": "./models/published_lthnet.py", "params": {"arch": "resnet18"}}
    }
    config = make_config(
        tmp_path / "run", feature_dim=12, memory={"centroids": True}, image_size=16
    )
    config.networks = make_config(tmp_path, networks=networks).networks
    del config.networks["feat_model"], config.networks["hash_head"]
    run_test_only(config, checkpoint=str(path))
    assert any("its split is unknown" in line for line in lines)
    run = open_run(config, initial_weights=False)
    images, _ = next(run.dataset.batches([run.dataset.split.query], run.augmentation))
    with torch.no_grad():
        expected = network(images)["codes"] >= 0
    found = load_codes(tmp_path / "run" / "codes.npz")
    assert np.array_equal(unpack(found.query_codes, 8) > 0, expected.numpy())


def hashnet_state(network, codes):
    """thuml's and DeepHash's residual network: every layer under two names."""
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("fc.")}
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    copies = {}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        copies[f"feature_layers.{numbers[part]}.{rest}"] = value
    return {**state, **copies, **{f"hash_layer.{k}": v for k, v in codes.state_dict().items()}}


@pytest.mark.parametrize("form", ["two names", "Sequential", "one name", "its last layer"])
def test_single_networks_of_hashnet_and_adsh_give_their_codes(tmp_path, form, lines):
    torch.manual_seed(0)
    network, codes = torchvision.models.resnet18().eval(), nn.Linear(512, 8)
    state = hashnet_state(network, codes)
    if form == "Sequential":
        state = {f"0.{key}": value for key, value in state.items()}
    elif form == "one name":
        state = {k: v for k, v in state.items() if not k.startswith(("conv1", "bn1", "layer"))}
    elif form == "its last layer":
        state = {k: v for k, v in state.items() if not k.startswith(("feature_", "hash_"))}
        state |= {f"fc.{key}": value for key, value in codes.state_dict().items()}
    network.fc = codes
    images = torch.randn(2, 3, 64, 64)
    model = sequential(feat_model=create_backbone("resnet18"), hash_head=create_flat(512, 8))
    load(model, state, tmp_path / "x.pt")
    with torch.no_grad():
        assert torch.equal(model(images)["codes"], torch.tanh(network(images)))
    assert ("left out of the file: feature_layers (120)" in lines[0]) == (form == "two names")
    assert "→ layers.codes.*" in lines[1]


def test_two_names_of_one_layer_must_agree(tmp_path):
    network, codes = torchvision.models.resnet18(), nn.Linear(512, 8)
    state = hashnet_state(network, codes)
    state["feature_layers.4.0.bn1.bias"] = state["layer1.0.bn1.bias"] + 1
    with pytest.raises(UserError, match=r"twice, as layer1\.0\.bn1\.bias and as feature_layers"):
        recognise(state, "checkpoint x")


ALEXNET = [f"features.{n}" for n in (0, 3, 6, 8, 10)]
AS_TORCHVISION = {**{name: f"backbone.{name}" for name in ALEXNET}}


@pytest.mark.parametrize(
    "expected",
    [
        {  # DeepHash's AlexNet
            "hash_layer.1": "backbone.classifier.1",
            "hash_layer.4": "backbone.classifier.4",
            "hash_layer.6": "hash_layer",
        },
        {  # its earlier one
            "features2.1": "backbone.classifier.1",
            "features2.4": "backbone.classifier.4",
            "out.1": "hash_layer",
        },
        {  # HashNet_PyTorch's, and LTHNet's authors'
            "classifier.1": "backbone.classifier.1",
            "classifier.4": "backbone.classifier.4",
            "hash_layer": "hash_layer",
        },
        {  # thuml's: the layers' copies under feature_layers
            "classifier.classifier1": "backbone.classifier.1",
            "classifier.classifier4": "backbone.classifier.4",
            "feature_layers.0.0": "backbone.features.0",
            "feature_layers.1.classifier1": "backbone.classifier.1",
            "hash_layer": "hash_layer",
        },
        {  # ADSH_PyTorch's: the last layer is torchvision's, of another width
            "classifier.1": "backbone.classifier.1",
            "classifier.4": "backbone.classifier.4",
            "classifier.6": "backbone.classifier.6",
        },
    ],
)
def test_the_layers_of_each_alexnet_are_known(expected):
    layers = {**AS_TORCHVISION, **expected}
    state = {f"{name}.weight": torch.zeros(()) for name in layers}
    found = recognise(state, "x")
    for part, name in found.parts.items():
        assert part == layers[name.removesuffix(".weight")] + ".weight"
    assert {part.removesuffix(".weight") for part in found.parts} == set(layers.values())


def test_a_wrapped_network_with_its_hash_layer_is_known():
    names = {"model.features.0.weight": "backbone.features.0.weight"}
    names |= {"hash_layer.1.weight": "hash_layer.weight"}
    found = recognise({name: torch.zeros(()) for name in names}, "x")
    assert found.parts == {part: name for name, part in names.items()}


@pytest.fixture(scope="module")
def oltr():
    """OLTR's final_model_checkpoint.pth, of ResNet-10 with its added layer."""
    torch.manual_seed(0)
    network = create_backbone("resnet10")
    state = {key.replace("network.", "module."): v for key, v in network.state_dict().items()}
    added, classifier = nn.Linear(512, 12), nn.Linear(12, 5)
    state |= {f"module.fc_add.{key}": value for key, value in added.state_dict().items()}
    networks = {
        "feat_model": OrderedDict(state),
        "classifier": {f"module.fc.{key}": v for key, v in classifier.state_dict().items()},
    }
    values = {"epoch": 90, "best_epoch": 88, "state_dict_best": networks, "best_acc": 0.4}
    return {**values, "centroids": None}, network.eval(), added


@pytest.mark.parametrize("older_format", [False, True])
def test_oltr_gives_its_features(tmp_path, oltr, older_format, lines):
    values, network, added = oltr
    path = tmp_path / "final_model_checkpoint.pth"
    torch.save(values, path, _use_new_zipfile_serialization=not older_format)
    head = {"def_file": "./models/direct_head.py", "fresh": ["hash_layer", "classifier"]}
    networks = {
        "feat_model": {"def_file": "./models/backbone.py", "params": {"arch": "resnet10"}},
        "hash_head": head,
    }
    for each in networks.values():
        each["weights"] = str(path)
    config = make_config(tmp_path / "run", feature_dim=12, image_size=32, networks=networks)
    run = open_run(config)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = run.model.eval()(images)["features"]
        torch.testing.assert_close(features, torch.relu(added(network(images))))
    assert "OLTR" in lines[0]
    assert "feat_model.module.* → network.*" in lines[0]
    assert "left as they are: hash_layer (2), classifier (2)" in lines[1]
    assert "in the file, not used: classifier (2)" in lines[1]


def test_a_partial_load_must_be_asked_for(tmp_path, oltr):
    path = tmp_path / "x.pth"
    torch.save(oltr[0], path)
    head = {"def_file": "./models/direct_head.py", "weights": str(path)}
    networks = {
        "feat_model": {"def_file": "./models/backbone.py", "params": {"arch": "resnet10"}},
        "hash_head": {**head, "fresh": ["classifier"]},
    }
    config = make_config(tmp_path / "run", feature_dim=12, networks=networks)
    with pytest.raises(UserError, match=r"hash_head\.weights .* missing: hash_layer\.weight"):
        open_run(config)
    config.networks["hash_head"].fresh = ["classifier", "hash_layers"]
    with pytest.raises(UserError, match="fresh names 'hash_layers', which neither"):
        open_run(config)


def test_the_state_dict_of_one_of_our_networks_loads_by_its_own_names(tmp_path):
    source = open_run(make_config(tmp_path / "a", seed=1))
    head = source.model.hash_head.state_dict()
    torch.save(head, tmp_path / "head.pth")
    config = make_config(
        tmp_path / "b",
        networks={"hash_head": {"def_file": "./models/direct_head.py",
                                "weights": str(tmp_path / "head.pth")}},
    )  # fmt: skip
    loaded = open_run(config).model.hash_head.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in head.items())
    torch.save(source.model.state_dict(), tmp_path / "both.pth")
    again = open_run(make_config(tmp_path / "c"))
    load_networks(again.model, load_checkpoint(tmp_path / "both.pth"), "both.pth")
    expected = source.model.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in again.model.state_dict().items())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "holds no state dict"),
        ({"epoch": 3, "map": 0.5}, r"holds no state dict \(its keys: epoch, map\)"),
        ([torch.zeros(1)], "holds a list"),
        (torch.zeros(3), "holds a Tensor"),
        ({"model": {"a": torch.zeros(1), "b": "text"}}, "holds a str as b"),
        ({"state_dict": {"g": {"w": torch.zeros(1)}}}, "holds no state dict"),
        ({"state_dict_best": {"feat_model": 3}}, "holds no state dict"),
        ({3: torch.zeros(1)}, "expected tensors by name"),
    ],
)
def test_a_file_without_weights_says_what_it_holds(tmp_path, values, message):
    path = tmp_path / "x.pt"
    torch.save(values, path)
    with pytest.raises(UserError, match=message) as raised:
        load_checkpoint(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.tensor(float("nan")), "holds NaN or infinity in: network.features.0.0.weight"),
        (torch.tensor(1e300, dtype=torch.float64), "NaN or infinity"),
        (torch.tensor(1), "of another type: .* int64 instead of float32"),
        (torch.tensor(1j), "complex64 instead of float32"),
    ],
)
def test_numbers_that_cannot_be_weights_are_named(tmp_path, library, value, message):
    state = library.state_dict()
    state["features.0.0.weight"] = value.expand(16, 3, 3, 3).clone()
    with pytest.raises(UserError, match=message):
        load(sequential(feat_model=create_backbone(ARCH)), state, tmp_path / "x.pth")


def test_initial_weights_of_the_backbone_tell_what_is_for_other_networks(tmp_path, lines):
    network, codes = torchvision.models.resnet18(), nn.Linear(512, 8)
    path = tmp_path / "x.pt"
    torch.save(hashnet_state(network, codes), path)
    networks = {"feat_model": {"def_file": "./models/backbone.py", "params": {"arch": "resnet18"},
                               "weights": str(path)}}  # fmt: skip
    run = open_run(make_config(tmp_path / "run", networks=networks))
    expected = network.state_dict()
    for key, value in run.model.feat_model.network.state_dict().items():
        assert torch.equal(value, expected[key])
    assert "for other networks: hash_layer (2)" in lines[-1]
    load_initial_weights(run.config, run.model, run.dataset)  # again: nothing is used up


def test_rules_tell_how_names_were_changed():
    names = {"network.layer1.0.w": "features.4.0.w", "network.layer1.1.w": "features.4.1.w"}
    assert renaming_rules(names) == ["features.4.* → network.layer1.*"]
    assert renaming_rules({"memory": "prototypes", "a.b": "a.b"}) == ["prototypes → memory"]
    assert renaming_rules({"network.w": "w", "network.b.w": "b.w"}) == ["* → network.*"]
