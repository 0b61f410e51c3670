"""Checkpoints: the one file that writes and loads them, always with weights_only=True."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.config import RunConfig
from engine.dataset import Dataset
from utils.atomic_file import atomic_path
from utils.errors import UserError

BEST = "final_model_checkpoint.pth"
LAST = "last_checkpoint.pth"
# What a resumed run may change: places, and how fast it goes.
EXEMPT = ("data_root", "log_dir", "device", "num_workers", "weights", "accelerate", "decode")


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
    """Read a checkpoint onto the CPU.

    Raises:
        UserError: if the file is missing, broken, or holds more than tensors and plain values.
    """
    if not Path(path).is_file():
        raise UserError(f"checkpoint {path} does not exist; train it first, or correct its path")
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what the unpickler raises on a foreign file has no common type
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"checkpoint {path} cannot be loaded as plain weights ({reason}); is it complete?"
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"checkpoint {path} holds a {type(values).__name__}, expected a dict")
    return values


def network_states(model: nn.Sequential) -> dict[str, dict[str, Tensor]]:
    """A copy of each network's state dict on the CPU, by the network's name in the config."""
    return {
        name: {key: value.detach().to("cpu", copy=True) for key, value in net.state_dict().items()}
        for name, net in model.named_children()
    }


def load_networks(model: nn.Sequential, checkpoint: dict[str, Any], path: str | Path) -> None:
    """Load every network of the model from a checkpoint of this project.

    Raises:
        UserError: naming what is missing or unexpected.
    """
    for name, network in model.named_children():
        load_network(network, _network_weights(checkpoint, name, path), f"{path}: {name}")


def load_network(
    network: nn.Module, weights: dict[str, Tensor], where: str, fresh: list[str] | None = None
) -> None:
    """Load one network strictly, but for the parts named in `fresh`, which stay as they are.

    Raises:
        UserError: with the missing and unexpected names, and shapes that differ.
    """
    own = network.state_dict()

    def is_fresh(key: str) -> bool:
        return any(key == part or key.startswith(f"{part}.") for part in fresh or [])

    expected = {key: value for key, value in own.items() if not is_fresh(key)}
    given = {key: value for key, value in weights.items() if not is_fresh(key)}
    problems = [
        *_listed("missing", [key for key in expected if key not in given]),
        *_listed("unexpected", [key for key in given if key not in expected]),
        *_listed(
            "of another shape",
            [
                f"{key} {tuple(given[key].shape)} instead of {tuple(value.shape)}"
                for key, value in expected.items()
                if key in given and given[key].shape != value.shape
            ],
        ),
    ]
    if problems:
        raise UserError(f"{where} does not fit the config's network: {'; '.join(problems)}")
    network.load_state_dict({**own, **given})


def load_initial_weights(config: RunConfig, model: nn.Sequential, dataset: Dataset) -> None:
    """Load the checkpoint files that `networks.*.weights` name.

    Raises:
        UserError: if one is missing or does not fit, or was trained on another split of the same
            data (its training images may be this split's validation queries).
    """
    for name, options in config.networks.items():
        if options.weights in (None, "default"):
            continue
        path = options.weights
        checkpoint = load_checkpoint(path)
        if checkpoint.get("source") == dataset.source.name:
            check_split(checkpoint, dataset, path)
        where = f"networks.{name}.weights '{path}'"
        weights = _network_weights(checkpoint, name, path)
        load_network(model.get_submodule(name), weights, where, options.fresh)


def check_same_config(checkpoint: dict[str, Any], config: RunConfig, path: str | Path) -> None:
    """Refuse to go on with other options than those a checkpoint was trained with.

    What EXEMPT names may differ.

    Raises:
        UserError: naming the keys that differ.
    """
    before, now = _flat(checkpoint.get("config", {})), _flat(config.to_dict())
    differing = sorted(
        key
        for key in before.keys() | now.keys()
        if before.get(key) != now.get(key) and key.rpartition(".")[2] not in EXEMPT
    )
    if differing:
        shown = ", ".join(f"{k} (was {before.get(k)}, is {now.get(k)})" for k in differing[:5])
        raise UserError(f"--resume: {path} was trained with other options: {shown}; restore them")


def check_split(checkpoint: dict[str, Any], dataset: Dataset, path: str | Path) -> None:
    """Refuse a checkpoint whose split differs from the dataset's.

    Raises:
        UserError: with both digests.
    """
    theirs = checkpoint.get("split_digest", "none")
    if theirs != dataset.digest:
        raise UserError(
            f"checkpoint {path} was trained on split {theirs[:12]}, the config gives "
            f"{dataset.digest[:12]}; use the seed, imbalance factor and data it was trained with"
        )


def _network_weights(checkpoint: dict[str, Any], name: str, path: str | Path) -> dict[str, Tensor]:
    networks = checkpoint.get("state_dict_best", checkpoint.get("networks"))
    if not isinstance(networks, dict) or not isinstance(networks.get(name), dict):
        held = ", ".join(networks) if isinstance(networks, dict) else "none"
        raise UserError(f"checkpoint {path} holds no network '{name}' (networks in it: {held})")
    return networks[name]


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as dotted keys; tuples as lists, for comparison."""
    if isinstance(values, dict) and values:
        parts = (_flat(value, f"{prefix}{key}.") for key, value in values.items())
        return {key: value for part in parts for key, value in part.items()}
    return {prefix[:-1]: list(values) if isinstance(values, tuple) else values}


def _listed(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return [f"{what}: {', '.join(names[:8])}{more}"]
