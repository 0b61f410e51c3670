"""Small checkpoints of every kind that can be loaded, and where each tensor stands in them.

The places are written down here, by hand, and not asked of the code that is under test.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from models.backbone import Backbone
from models.direct_head import DirectHead
from models.flat_head import FlatHead
from models.published_lthnet import PublishedLTHNet
from models.small_cnn import SmallCNN

Place = tuple[str, ...]  # keys from the outermost dict inwards
STAGES = ("layer1", "layer2", "layer3", "layer4")
NUMBERED = ("conv1", "bn1", "relu", "maxpool", *STAGES, "avgpool")  # a ResNet's children


@dataclass(frozen=True)
class Specimen:
    """A checkpoint that loads.

    values: what is saved. kind: 'archive', 'pickles' or 'safetensors'. build: makes the networks.
    places: their tensor names → where the tensor stands in `values`, perhaps twice. states: the
    state dicts in `values`. free: beginnings of names in these that no network has.
    fresh: parts by network that stay as they are; None to load whole, as --checkpoint does.
    """

    name: str
    values: dict[str, Any]
    kind: str
    build: Callable[[], nn.Sequential]
    places: dict[str, tuple[Place, ...]]
    states: tuple[Place, ...]
    free: tuple[str, ...] = ()
    fresh: dict[str, list[str]] | None = None


def write(values: Any, kind: str, path: Path) -> None:
    """Write `values` as `kind` of file."""
    if kind == "safetensors":
        safetensors.torch.save_file({k: v.contiguous().clone() for k, v in values.items()}, path)
    else:
        torch.save(values, path, _use_new_zipfile_serialization=kind == "archive")


def residual() -> nn.Sequential:
    """A network with a ResNet's names, of a few thousand numbers."""
    stages = {name: nn.Sequential(_block()) for name in STAGES}
    first = {"conv1": nn.Conv2d(3, 4, 3, bias=False), "bn1": nn.BatchNorm2d(4)}
    pools = {"relu": nn.ReLU(), "maxpool": nn.MaxPool2d(2)}
    return nn.Sequential(OrderedDict(**first, **pools, **stages, avgpool=nn.AdaptiveAvgPool2d(1)))


def _block() -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv1=nn.Conv2d(4, 4, 3, bias=False), bn1=nn.BatchNorm2d(4)))


def _named(**networks: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(networks))


def _numbers(network: nn.Module) -> dict[str, Any]:
    """The network's state dict with numbers of its own."""
    return {
        name: torch.randn(value.shape) if value.is_floating_point() else torch.tensor(7)
        for name, value in network.state_dict().items()
    }


def _numbered(name: str) -> str:
    """A residual network's name as that of a child by number: layer1.0.w → 4.0.w."""
    part, _, rest = name.partition(".")
    return f"{NUMBERED.index(part)}.{rest}"


def own() -> Specimen:
    """This project's own checkpoint."""

    def build() -> nn.Sequential:
        return _named(feat_model=SmallCNN(2), hash_head=DirectHead(8, 6, 8, 5))

    states = {name: _numbers(network) for name, network in build().named_children()}
    values = {
        "state_dict_best": states,
        "epoch": 2,
        "best_epoch": 1,
        "best_map": 0.5,
        "config": {"training_opt": {"code_length": 8}},
        "source": "digits",
        "split_digest": "0123456789abcdef",
        "class_names": ["a", "b"],
        "class_counts": [3, 2],
    }
    places: dict[str, tuple[Place, ...]] = {
        f"{network}.{name}": (("state_dict_best", network, name),)
        for network, state in states.items()
        for name in state
    }
    inside = tuple(("state_dict_best", network) for network in states)
    return Specimen("own", values, "archive", build, places, inside)


def published_lthnet() -> Specimen:
    """LTHNet's, as its authors' code saves it."""

    def build() -> nn.Sequential:
        features = nn.Sequential(*residual().children())
        return _named(lthnet=PublishedLTHNet(features, 4, 6, 8, 5, 5))

    state = _numbers(build()[0])
    prototypes = state.pop("prototypes")
    values = {"model": state, "prototypes": prototypes, "map": torch.tensor(0.3), "beta": 0.99}
    places: dict[str, tuple[Place, ...]] = {f"lthnet.{name}": (("model", name),) for name in state}
    places["lthnet.prototypes"] = (("prototypes",),)
    return Specimen("published LTHNet", values, "archive", build, places, (("model",),))


def oltr() -> Specimen:
    """OLTR's, in PyTorch's older format, for a backbone and the layer after it."""

    def build() -> nn.Sequential:
        backbone = Backbone(residual(), 4, left_out=("fc",))
        return _named(feat_model=backbone, hash_head=DirectHead(4, 6, 8, 5))

    backbone = {f"module.{name}": value for name, value in _numbers(residual()).items()}
    added = {f"module.fc_add.{name}": value for name, value in _numbers(nn.Linear(4, 6)).items()}
    classifier = {f"module.fc.{name}": value for name, value in _numbers(nn.Linear(6, 5)).items()}
    networks = {"feat_model": {**backbone, **added}, "classifier": classifier}
    values = {"epoch": 9, "state_dict_best": networks, "best_acc": 0.4, "centroids": None}
    places: dict[str, tuple[Place, ...]] = {
        f"feat_model.network.{name.removeprefix('module.')}": (
            ("state_dict_best", "feat_model", name),
        )
        for name in backbone
    }
    for name in ("weight", "bias"):
        place = ("state_dict_best", "feat_model", f"module.fc_add.{name}")
        places[f"hash_head.feature_layer.{name}"] = (place,)
    inside = (("state_dict_best", "feat_model"),)
    fresh = {"feat_model": [], "hash_head": ["hash_layer", "classifier"]}
    return Specimen("OLTR", values, "pickles", build, places, inside, fresh=fresh)


def library() -> Specimen:
    """A state dict of a library, for a backbone alone."""

    def build() -> nn.Sequential:
        return _named(feat_model=Backbone(residual(), 4, left_out=("fc",)))

    state = _numbers(residual())
    values = {**state, "fc.weight": torch.randn(7, 4), "fc.bias": torch.randn(7)}
    places: dict[str, tuple[Place, ...]] = {
        f"feat_model.network.{name}": ((name,),) for name in state
    }
    return Specimen("timm", values, "safetensors", build, places, ((),), free=("fc.",))


def hashnet() -> Specimen:
    """HashNet's residual network, each of whose layers has two names."""

    def build() -> nn.Sequential:
        backbone = Backbone(residual(), 4, left_out=("fc",))
        return _named(feat_model=backbone, hash_head=FlatHead(4, 8))

    state, hash_layer = _numbers(residual()), _numbers(nn.Linear(4, 8))
    copies = {f"feature_layers.{_numbered(name)}": value for name, value in state.items()}
    values = {**state, **copies, **{f"hash_layer.{k}": v for k, v in hash_layer.items()}}
    places: dict[str, tuple[Place, ...]] = {
        f"feat_model.network.{name}": ((name,), (f"feature_layers.{_numbered(name)}",))
        for name in state
    }
    for name in hash_layer:
        places[f"hash_head.layers.codes.{name}"] = ((f"hash_layer.{name}",),)
    return Specimen("HashNet", values, "archive", build, places, ((),))


SPECIMENS: tuple[Callable[[], Specimen], ...] = (own, published_lthnet, oltr, library, hashnet)
