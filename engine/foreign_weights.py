"""Weights of other projects: told by their names, then renamed to a config's networks."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.backbone import Backbone
from utils.errors import UserError

Rules = tuple[tuple[str, str], ...]

# Where training scripts put a network's state dict; the first that is there is taken.
CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
BESIDE = ("prototypes", "centroids")  # tensors of the network that stand beside its state dict
WRAPPERS = ("module.", "_orig_mod.", "0.", "model.", "backbone.", "net.")  # that all names share
_TRACKED = "num_batches_tracked"  # absent from files older than PyTorch 0.4.1

_RESNET_BY_NUMBER: Rules = (
    ("0.", "backbone.conv1."),
    ("1.", "backbone.bn1."),
    *((f"{stage + 3}.", f"backbone.layer{stage}.") for stage in (1, 2, 3, 4)),
)
# How torchvision's published files name what its networks have renamed since.
_OLD_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)\."), r"\1\2."),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)


@dataclass(frozen=True)
class Layout:
    """How a project names a network's tensors.

    required: names that tell it from others. rules: beginnings of names and what they stand for,
    the first that fits counts: `backbone.` and the library's name of a part, or the name of this
    project's part of a head. Names without a rule are the backbone's.
    """

    format: str
    required: tuple[str, ...]
    rules: Rules = ()


LAYOUTS = (
    Layout(
        "published LTHNet",
        ("features.0.weight", "fc_hallucinator.weight", "fc_selector.weight", "hash_layer.weight"),
        (
            *((f"features.{number}", name) for number, name in _RESNET_BY_NUMBER),
            ("fc_hallucinator.", "hallucinator."),
            ("fc_selector.", "selector."),
            ("fc.", "feature_layer."),
            ("prototypes", "memory"),
            ("hash_layer.", "hash_layer."),
            ("classifier.", "classifier."),
        ),
    ),
    Layout(
        "OLTR",
        ("feat_model.conv1.weight",),
        (
            ("feat_model.fc_add.", "feature_layer."),
            ("feat_model.", "backbone."),
            ("classifier.fc_hallucinator.", "hallucinator."),
            ("classifier.fc_selector.", "selector."),
            ("classifier.fc.", "classifier."),
            ("classifier.", "classifier."),
            ("centroids", "memory"),
        ),
    ),
    Layout(
        "HashNet, AlexNet or VGG",
        ("feature_layers.0.0.weight", "hash_layer.weight"),
        (
            ("feature_layers.0.", "backbone.features."),
            ("feature_layers.1.classifier", "backbone.classifier."),
            ("classifier.classifier", "backbone.classifier."),
            ("hash_layer.", "hash_layer."),
        ),
    ),
    Layout(
        "HashNet, ResNet",
        ("feature_layers.0.weight", "hash_layer.weight"),
        (
            *((f"feature_layers.{number}", name) for number, name in _RESNET_BY_NUMBER),
            ("hash_layer.", "hash_layer."),
        ),
    ),
    Layout(
        "DeepHash, AlexNet",
        ("hash_layer.1.weight", "hash_layer.4.weight", "hash_layer.6.weight"),
        (
            ("hash_layer.6.", "hash_layer."),
            ("hash_layer.", "backbone.classifier."),
        ),
    ),
    Layout(
        "DeepHash, AlexNet in two parts",
        ("features2.1.weight", "features2.4.weight", "out.1.weight"),
        (
            ("features2.", "backbone.classifier."),
            ("out.1.", "hash_layer."),
        ),
    ),
    Layout(
        "a network and its hash layer",
        ("model.features.0.weight", "hash_layer.1.weight"),
        (
            ("model.", "backbone."),
            ("hash_layer.1.", "hash_layer."),
        ),
    ),
    Layout(
        "a network with a hash layer",
        ("hash_layer.weight",),
        (("hash_layer.", "hash_layer."),),
    ),
    Layout("state dict of torchvision or timm", ()),
)


@dataclass(frozen=True)
class ForeignWeights:
    """What a file of another project holds.

    tensors: by the file's names, what all of them begin with taken off; files: each one's name
    with it. parts: what a tensor stands for (see Layout) → its key in `tensors`.
    """

    format: str
    tensors: dict[str, Tensor]
    files: dict[str, str]
    parts: dict[str, str]


@dataclass(frozen=True)
class NetworkWeights:
    """A network's weights, by its own names; `sources` are the file's names of them.

    left_out: names in the file that no network of this project has, or that repeat others.
    """

    format: str
    tensors: dict[str, Tensor]
    sources: dict[str, str]
    left_out: tuple[str, ...] = ()


def recognise(values: Any, where: str) -> ForeignWeights:
    """Find the state dict in what was read from a file, and tell whose it is.

    Raises:
        UserError: if there is none, or it names one part twice with different numbers.
    """
    named = _state_dict(values, where)
    tensors = {key: tensor for key, (_, tensor) in named.items()}
    files = {key: name for key, (name, _) in named.items()}
    layout = next(each for each in LAYOUTS if all(name in tensors for name in each.required))
    parts: dict[str, str] = {}
    for name, tensor in tensors.items():
        part = _part(name, layout.rules)
        known = parts.setdefault(part, name)
        if known != name and not torch.equal(tensors[known], tensor):
            raise UserError(
                f"{where} holds the same part twice, as {files[known]} and as {files[name]}, "
                "with different numbers; leave one out"
            )
    return ForeignWeights(layout.format, tensors, files, parts)


def assign(foreign: ForeignWeights, model: nn.Sequential) -> dict[str, NetworkWeights]:
    """Give each network of the model its part of a foreign file, by the network's own names.

    What a network lacks, or has no place for, shows where it is loaded. A file that already has
    the names of a network, or of all of them, is taken as it is. The backbone's are those of the
    first network, all others those of the last. A library's classifier is the hash layer where
    the file has no other and the last network has one.
    """
    networks = dict(model.named_children())
    direct = _as_named(foreign, networks)
    if direct:
        return direct
    first, last = next(iter(networks)), next(reversed(networks))
    backbone, parts = networks[first], foreign.parts
    prefix = "network." if isinstance(backbone, Backbone) else ""
    absent = backbone.left_out if isinstance(backbone, Backbone) else ()
    hash_layer = _hash_layer(networks[last])
    if absent and hash_layer and "hash_layer.weight" not in parts:
        parts = _with_hash_layer(parts, f"backbone.{absent[0]}.")
    keys: dict[str, dict[str, str]] = {name: {} for name in networks}
    used = set(parts.values())
    left_out = [name for key, name in foreign.files.items() if key not in used]
    for part, key in parts.items():
        inside = part.removeprefix("backbone.")
        if inside == part:
            own = part.replace("hash_layer.", hash_layer, 1) if hash_layer else part
            keys[last][own] = key
        elif any(inside.startswith(f"{each}.") for each in absent):
            left_out.append(foreign.files[key])
        else:
            keys[first][prefix + inside] = key
    return {
        name: _weights(foreign, keys[name], network, left_out if name == first else [])
        for name, network in networks.items()
    }


def renaming_rules(sources: dict[str, str]) -> list[str]:
    """How names were changed, as `features.4.* → network.layer1.*`, from own names → file's."""
    rules: dict[str, None] = {}
    for own, source in sources.items():
        before, after = source.split("."), own.split(".")
        while before and after and before[-1] == after[-1]:
            del before[-1], after[-1]
        if before or after:
            shared = len(before) < len(source.split("."))
            old, new = (".".join([*each, "*"] if shared else each) for each in (before, after))
            rules[f"{old} → {new}"] = None
    return list(rules)


def _state_dict(values: Any, where: str) -> dict[str, tuple[str, Tensor]]:
    """The tensors of the state dict in `values`, several networks' under `network.name`.

    Returns:
        name without wrappers → the file's name, and the tensor.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where} holds a {type(values).__name__}, expected a dict of tensors")
    networks = values.get("state_dict_best", values.get("networks"))
    if isinstance(networks, dict):
        states = {f"{name}.": each for name, each in networks.items() if isinstance(each, dict)}
    else:
        held = (values.get(key) for key in CONTAINERS)
        states = {"": next((each for each in held if isinstance(each, dict) and each), values)}
    found: dict[str, tuple[str, Tensor]] = {}
    for prefix, state in states.items():
        if not any(isinstance(each, Tensor) for each in state.values()):
            continue
        for name, each in state.items():
            if not isinstance(each, Tensor) or not isinstance(name, str):
                kind = type(each).__name__
                raise UserError(f"{where} holds a {kind} as {name}, expected tensors by name")
        for key, name in zip(_without_wrappers(list(state)), state, strict=True):
            found[prefix + key] = (prefix + name, state[name])
    if not found:
        keys = ", ".join(str(key) for key in list(values)[:8]) or "none"
        raise UserError(f"{where} holds no state dict (its keys: {keys})")
    beside = {key: values[key] for key in BESIDE if isinstance(values.get(key), Tensor)}
    return found | {key: (key, each) for key, each in beside.items()}


def _without_wrappers(names: list[str]) -> list[str]:
    """The names without the beginnings that all of them share because a wrapper put them there."""
    for wrapper in WRAPPERS:
        if all(name.startswith(wrapper) for name in names):
            return _without_wrappers([name.removeprefix(wrapper) for name in names])
    return names


def _part(name: str, rules: Rules) -> str:
    for beginning, meaning in rules:
        if name.startswith(beginning):
            return meaning + name.removeprefix(beginning)
    for pattern, replacement in _OLD_NAMES:
        name = pattern.sub(replacement, name)
    return f"backbone.{name}"


def _as_named(
    foreign: ForeignWeights, networks: dict[str, nn.Module]
) -> dict[str, NetworkWeights] | None:
    """The weights of a file that names its tensors as this project does, else None."""
    own = {name: network.state_dict().keys() for name, network in networks.items()}
    for keys in (
        {file: key for key, file in foreign.files.items()},
        {key: key for key in foreign.files},
    ):
        found = {name: keys for name in networks if keys.keys() <= own[name]}  # of one network
        if not found:
            of_all = {
                name: {
                    each: keys[f"{name}.{each}"] for each in own[name] if f"{name}.{each}" in keys
                }
                for name in networks
            }
            found = of_all if sum(map(len, of_all.values())) == len(keys) else {}
        if found:
            return {name: _weights(foreign, found[name], networks[name]) for name in found}
    return None


def _weights(
    foreign: ForeignWeights, keys: dict[str, str], network: nn.Module, left_out: Sequence[str] = ()
) -> NetworkWeights:
    """A network's weights, from its own names → keys in `foreign.tensors`."""
    tensors = {own: foreign.tensors[key] for own, key in keys.items()}
    sources = {own: foreign.files[key] for own, key in keys.items()}
    if not any(key.endswith(_TRACKED) for key in foreign.tensors):
        state = network.state_dict()
        tensors |= {k: torch.zeros_like(v) for k, v in state.items() if k.endswith(_TRACKED)}
    return NetworkWeights(foreign.format, tensors, sources, tuple(left_out))


def _with_hash_layer(parts: dict[str, str], classifier: str) -> dict[str, str]:
    """The parts, with the library's classifier as the hash layer."""
    return {
        "hash_layer." + part.removeprefix(classifier) if part.startswith(classifier) else part: key
        for part, key in parts.items()
    }


def _hash_layer(network: nn.Module) -> str:
    """How a head names its hash layer; empty if it has none."""
    keys = network.state_dict().keys()
    return next((n for n in ("hash_layer.", "layers.codes.") if f"{n}weight" in keys), "")
