"""Checkpoints: the one door through which weights are written, and loaded into networks."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.config import RunConfig
from engine.dataset import Dataset
from engine.flat_options import PLACE_AND_SPEED, flat_defaults, flat_values, is_weights
from engine.foreign_weights import NetworkWeights, assign, recognise, renaming_rules
from engine.published_folder import read_folder
from engine.weights_file import read_weights_file
from utils.atomic_file import atomic_path
from utils.errors import UserError

BEST = "final_model_checkpoint.pth"
LAST = "last_checkpoint.pth"
EXEMPT = (*PLACE_AND_SPEED, "training_opt.on_bad_loss")  # what a resumed run may change
# What a checkpoint of this project holds beside its networks, where it holds it.
_TYPES: dict[str, type[Any] | tuple[type[Any], ...]] = {
    **dict.fromkeys(("config", "losses", "optimizer", "scheduler", "seconds"), dict),
    **dict.fromkeys(("split_digest", "source", "recipe"), str),
    **dict.fromkeys(("class_names", "class_counts"), list),
    **dict.fromkeys(("epoch", "best_epoch"), int),
    "best_map": (int, float),
}
logger = logging.getLogger("long_tail_hashing")


def save_checkpoint(path: Path, values: dict[str, Any]) -> None:
    """Write plain values and tensors, whole or not at all.

    Raises:
        UserError: if the disk is full or the folder cannot be written.
    """
    try:
        with atomic_path(path) as temporary:
            torch.save(values, temporary)
    except (OSError, RuntimeError) as error:  # torch's writer raises the latter on a full disk
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"checkpoint {path} cannot be written ({reason}); free space there, then --resume"
        ) from error


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this project, a published folder, or another project's weights.

    Nothing in it is run (engine/weights_file.py says what is checked).

    Returns:
        this project's values: `state_dict_best` or `networks` (network → state dict), `config`,
        `split_digest` and more; of another project's file `foreign`, a ForeignWeights, alone.

    Raises:
        UserError: if the file is missing, damaged, or holds no weights.
    """
    if _is_folder(Path(path)):
        return read_folder(Path(path))
    values = read_weights_file(path)
    own = isinstance(values, dict) and ("state_dict_best" in values or "networks" in values)
    if not own or not ("config" in values or "split_digest" in values):
        return {"foreign": recognise(values, f"checkpoint {path}")}
    for key, kind in _TYPES.items():
        if key in values and not isinstance(values[key], kind):
            found = type(values[key]).__name__
            raise UserError(f"checkpoint {path} holds a {found} as {key}; is it damaged?")
    return values


def network_states(model: nn.Sequential) -> dict[str, dict[str, Tensor]]:
    """A copy of each network's state dict on the CPU, by the network's name in the config."""
    return {
        name: {key: value.detach().to("cpu", copy=True) for key, value in net.state_dict().items()}
        for name, net in model.named_children()
    }


def load_networks(model: nn.Sequential, checkpoint: dict[str, Any], path: str | Path) -> None:
    """Load every network of the model from a checkpoint, whole; a line a network says what came.

    Raises:
        UserError: naming what is missing or unexpected.
    """
    found = _networks_in(checkpoint, model, path)
    networks = dict(model.named_children())
    weights = {name: _weights_of(found, name, path) for name in networks}
    beyond = [name for name in found if name not in networks]
    if beyond:
        raise UserError(
            f"checkpoint {path} holds networks that the config lacks: {', '.join(beyond)}"
        )
    for name, network in networks.items():
        where = f"{path}: {name}{_read_as(checkpoint)}"
        load_network(network, weights[name].tensors, where)
    for name, network in networks.items():
        logger.info("%s", describe_load(network, weights[name], f"{path}: {name}"))


def load_network(
    network: nn.Module, weights: dict[str, Tensor], where: str, fresh: list[str] | None = None
) -> None:
    """Load one network strictly, but for the parts named in `fresh`, which stay as they are.

    Floating-point numbers are converted to the network's type; other types must be the same.

    Raises:
        UserError: with the missing and unexpected names, shapes and types that differ, and NaN.
    """
    own = network.state_dict()
    for part in fresh or []:
        if not any(_is_fresh(key, [part]) for key in (*own, *weights)):
            raise UserError(f"{where}: fresh names '{part}', which neither network nor file has")
    expected = {key: value for key, value in own.items() if not _is_fresh(key, fresh)}
    given = {key: value for key, value in weights.items() if not _is_fresh(key, fresh)}
    problems = _differences(given, expected)
    if problems:
        raise UserError(f"{where} does not fit the config's network: {'; '.join(problems)}")
    loaded = {key: given[key].to(value.dtype) for key, value in expected.items()}
    broken = [key for key, value in loaded.items() if not torch.isfinite(value).all()]
    if broken:
        raise UserError(f"{where} holds {'; '.join(_listed('NaN or infinity in', broken))}")
    network.load_state_dict({**own, **loaded})


def describe_load(
    network: nn.Module, weights: NetworkWeights, where: str, fresh: list[str] | None = None
) -> str:
    """One line: what of a network came from where, what was renamed, left as it is, left out."""
    own = network.state_dict()
    taken = [key for key in weights.sources if not _is_fresh(key, fresh)]
    said = [f"{len(taken)} of {len(own)} tensors matched ({weights.format})"]
    rules = renaming_rules({key: weights.sources[key] for key in taken})
    if rules:
        more = f" and {len(rules) - 12} more" if len(rules) > 12 else ""
        said.append(f"renamed {', '.join(rules[:12])}{more}")
    said += _counted("left as they are", [key for key in own if _is_fresh(key, fresh)])
    unused = [key for key in weights.sources if _is_fresh(key, fresh)]
    said += _counted("in the file, not used", [weights.sources[key] for key in unused])
    said += _counted("left out of the file", list(weights.left_out))
    said += _counted("not in the file, 0", [k for k in weights.tensors if k not in weights.sources])
    kinds = {(_type_name(weights.tensors[key]), _type_name(own[key])) for key in taken}
    said += [f"converted {old} to {new}" for old, new in sorted(kinds) if old != new]
    return f"{where}: {'; '.join(said)}"


def load_initial_weights(config: RunConfig, model: nn.Sequential, dataset: Dataset) -> None:
    """Load the files that `networks.*.weights` name; a line a network says what came.

    A memory is left as it is: training begins by filling it.

    Raises:
        UserError: if one is missing or does not fit, or was trained on another split of the same
            data (its training images may be this split's validation queries).
    """
    read: dict[str, dict[str, Any]] = {}
    for name, options in config.networks.items():
        if options.weights in (None, "default"):
            continue
        path, where = options.weights, f"networks.{name}.weights '{options.weights}'"
        if path not in read:
            try:
                read[path] = load_checkpoint(path)
            except UserError as error:
                raise UserError(f"networks.{name}.weights: {error}") from error
        if read[path].get("source") == dataset.source.name:
            check_split(read[path], dataset, path)
        found, network = _networks_in(read[path], model, path), model.get_submodule(name)
        weights = _weights_of(found, name, path)
        fresh = [*options.fresh, *_memory_parts(network, weights.tensors)]
        load_network(network, weights.tensors, where + _read_as(read[path]), fresh)
        others = [key for other, each in found.items() if other != name for key in each.sources]
        said = describe_load(network, weights, where, fresh)
        logger.info("%s", "; ".join([said, *_counted("for other networks", others)]))


def check_same_config(checkpoint: dict[str, Any], config: RunConfig, path: str | Path) -> None:
    """Refuse to go on with other options than those a checkpoint was trained with.

    What EXEMPT names, and its networks' first weights, may differ. An option that did not exist
    then had what is its default now.

    Raises:
        UserError: naming the keys that differ.
    """
    before = {**flat_defaults(config), **flat_values(checkpoint.get("config", {}))}
    now = flat_values(config.to_dict())
    differing = sorted(
        key
        for key in before.keys() | now.keys()
        if before.get(key) != now.get(key) and key not in EXEMPT and not is_weights(key)
    )
    if differing:
        shown = ", ".join(f"{k} (was {before.get(k)}, is {now.get(k)})" for k in differing[:5])
        raise UserError(f"--resume: {path} was trained with other options: {shown}; restore them")


def check_split(checkpoint: dict[str, Any], dataset: Dataset, path: str | Path) -> None:
    """Refuse a checkpoint whose split differs from the dataset's; another project's has none.

    Raises:
        UserError: with both digests.
    """
    if "foreign" in checkpoint:
        logger.warning(
            "%s does not say what it was trained on: its split is unknown, and queries may have "
            "been among its training images",
            path,
        )
        return
    theirs = checkpoint.get("split_digest", "none")
    if theirs != dataset.digest:
        raise UserError(
            f"checkpoint {path} was trained on split {theirs[:12]}, the config gives "
            f"{dataset.digest[:12]}; use the seed, imbalance factor and data it was trained with"
        )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that no file can have
        return False


def _networks_in(
    checkpoint: dict[str, Any], model: nn.Sequential, path: str | Path
) -> dict[str, NetworkWeights]:
    """The weights of each network that a checkpoint holds, by the network's name."""
    if "foreign" in checkpoint:
        return assign(checkpoint["foreign"], model)
    networks = checkpoint.get("state_dict_best", checkpoint.get("networks"))
    if not isinstance(networks, dict):
        return {}
    found = {}
    for name, state in networks.items():
        entries = state.items() if isinstance(state, dict) else [(name, state)]
        for key, value in entries:
            if not isinstance(value, Tensor) or not isinstance(key, str):
                kind = type(value).__name__
                raise UserError(f"checkpoint {path} holds a {kind} as {name}.{key}, not a tensor")
        found[name] = NetworkWeights("this project's", state, {key: key for key in state})
    return found


def _weights_of(found: dict[str, NetworkWeights], name: str, path: str | Path) -> NetworkWeights:
    if name not in found:
        held = ", ".join(found) or "none"
        raise UserError(f"checkpoint {path} holds no network '{name}' (networks in it: {held})")
    return found[name]


def _read_as(checkpoint: dict[str, Any]) -> str:
    """What a file of another project was taken for, in a message."""
    return f", read as {checkpoint['foreign'].format}," if "foreign" in checkpoint else ""


def _differences(given: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    """What keeps `given` from being loaded as `expected`."""
    common = [(key, given[key], value) for key, value in expected.items() if key in given]
    return [
        *_listed("missing", [key for key in expected if key not in given]),
        *_listed("unexpected", [key for key in given if key not in expected]),
        *_listed(
            "of another shape",
            [
                f"{key} {tuple(theirs.shape)} instead of {tuple(own.shape)}"
                for key, theirs, own in common
                if theirs.shape != own.shape
            ],
        ),
        *_listed(
            "of another type",
            [
                f"{key} {_type_name(theirs)} instead of {_type_name(own)}"
                for key, theirs, own in common
                if not _converts(theirs.dtype, own.dtype)
            ],
        ),
    ]


def _memory_parts(network: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """The parts of a head's memory that the network or its weights have."""
    parts: tuple[str, ...] = getattr(network, "MEMORY_PARTS", ())
    return [part for part in parts if part in network.state_dict() or part in weights]


def _is_fresh(key: str, fresh: list[str] | None) -> bool:
    return any(key == part or key.startswith(f"{part}.") for part in fresh or [])


def _converts(given: torch.dtype, own: torch.dtype) -> bool:
    """Whether numbers of one type may be loaded as another."""
    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    return given == own or (given in floats and own in floats)


def _type_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _counted(what: str, keys: list[str]) -> list[str]:
    """The parts that the keys belong to, with how many tensors each has."""
    parts = Counter(key.split(".")[0] for key in keys)
    shown = [f"{part} ({count})" for part, count in parts.most_common(8)]
    return [f"{what}: {', '.join(shown)}{' and more' if len(parts) > 8 else ''}"] if parts else []


def _listed(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return [f"{what}: {', '.join(names[:8])}{more}"]
