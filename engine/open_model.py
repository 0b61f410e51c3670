"""A model without its data: a published folder, a run's folder or a checkpoint, made ready."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.file_images import FileImages
from data.images import ArrayImages, Images, open_images
from data.source import Source
from data.split import Split
from engine.accelerate import to_device
from engine.build import build_networks, check_config_parts
from engine.checkpoint import BEST, load_checkpoint, load_networks, network_states
from engine.config import RunConfig, check_config
from engine.dataset import Dataset, choose_workers, open_source
from engine.model import choose_precision, make_augmentation
from engine.preprocessing import preprocessing
from engine.run import Run, prepare_device
from utils.def_file import PROJECT
from utils.errors import UserError

LARGEST_HELD = 4096  # pixels a side
_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Model:
    """Networks that code images, as they are at a run's own test.

    run: without images.
    preprocessing: as of `engine.preprocessing`.
    digest: names the weights and how images are prepared for them.
    checkpoint: what the file holds.
    """

    run: Run
    preprocessing: dict[str, Any]
    digest: str
    checkpoint: dict[str, Any]


def open_model(
    path: str | Path, config: RunConfig | None = None, options: dict[str, Any] | None = None
) -> Model:
    """Make the networks of a published folder, a run's folder or a checkpoint file ready.

    config: for a checkpoint that holds none.
    options: training options in place of the config's: device, num_workers and such.

    Raises:
        UserError: there is no such model, it does not fit its config, or codes no image files.
    """
    best = Path(path) / BEST
    path = best if best.is_file() else Path(path)
    checkpoint = load_checkpoint(path)
    own = config is None
    config = config or _config_in(checkpoint, path)
    if config.engine == "shallow":
        raise UserError(f"{path} is of a shallow method, which keeps no weights to code with")
    config = replace(config, training_opt=replace(config.training_opt, **(options or {})))
    if own:
        _check_code(config, "models", path)
    run = _open_run(config, checkpoint, path)
    if "preprocessing" in checkpoint:
        found = _checked(checkpoint["preprocessing"], path)
    else:
        if own:
            _check_code(config, "data", path)
        found = preprocessing(_with_images(run, path))
    if found is None:
        raise UserError(f"{path}: its networks read features, not images; code images with another")
    return Model(run, found, model_digest(network_states(run.model), found), checkpoint)


def model_digest(states: dict[str, dict[str, Tensor]], preprocessing: dict[str, Any]) -> str:
    """SHA-256, in hex, of all weights and of how images are prepared for them."""
    found = hashlib.sha256(json.dumps(preprocessing, sort_keys=True).encode())
    for network, state in states.items():
        for name, tensor in sorted(state.items()):
            found.update(f"{network}.{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            found.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _config_in(checkpoint: dict[str, Any], path: Path) -> RunConfig:
    if "config" not in checkpoint:
        raise UserError(f"{path} holds weights without a config; name one that fits by --config")
    try:
        return check_config(checkpoint["config"], str(path))
    except UserError as error:
        raise UserError(f"the config in {path}: {error}") from error


def _check_code(config: RunConfig, folder: str, path: Path) -> None:
    """Of what a config that came with weights names as code, take the project's own alone."""
    networks = [network.def_file for network in config.networks.values()]
    for def_file in networks if folder == "models" else [config.data.def_file]:
        found = (PROJECT / def_file).resolve()
        if found.parent != PROJECT / folder or not found.is_file():
            raise UserError(
                f"the config in {path} runs {def_file}, which is none of the project's "
                f"{folder}/*.py; if you trust it, give the config yourself by --config"
            )


def _checked(found: Any, path: Path) -> dict[str, Any] | None:
    """The preparation of images that a checkpoint states, if it makes sense."""
    held = found.get("held_size", 0) if isinstance(found, dict) else 0
    whole = isinstance(held, int) and not isinstance(held, bool) and 0 < held <= LARGEST_HELD
    if found is None or held is None or whole:
        return found
    raise UserError(
        f"{path} says that images are held at {held!r} pixels a side, expected a number up to "
        f"{LARGEST_HELD}, or null; is it damaged?"
    )


def _with_images(run: Run, path: Path) -> Run:
    """The run with its own images, or none of the same size, for how large they are held."""
    data = run.config.data
    images: Images
    try:
        images = open_images(open_source(run.config), data.cache_size, data.decode)
    except UserError as error:
        if data.cache_size == "auto":
            raise UserError(
                f"{path} leaves it to its data how large images are held, but {error}; or say it "
                "by --config and --opts data.cache_size=PIXELS (null: as they are)"
            ) from error
        images = FileImages(run.dataset.source)
        if data.cache_size is not None:
            images = ArrayImages(np.zeros((0, data.cache_size, data.cache_size, 3), dtype=np.uint8))
    return replace(run, dataset=replace(run.dataset, images=images))


def _open_run(config: RunConfig, checkpoint: dict[str, Any], path: Path) -> Run:
    """The networks with the checkpoint's weights, as `engine.run.open_run` makes them ready."""
    options = config.training_opt
    check_config_parts(_networks_alone(config))
    device = prepare_device(options)
    dataset = _no_images(config, checkpoint, path, device)
    networks = {name: replace(each, weights=None) for name, each in config.networks.items()}
    model = build_networks(replace(config, networks=networks), dataset.num_classes)
    augmentation = make_augmentation(config, model)
    model = to_device(model, options.accelerate, device)
    load_networks(model, checkpoint, path)
    precision = choose_precision(options, device)
    return Run(config, dataset, model, augmentation, precision, device)


def _networks_alone(config: RunConfig) -> RunConfig:
    """The config without its data and losses, whose code need not be here."""
    data = replace(config.data, def_file="./data/synthetic.py", params={})
    return replace(config, data=data, criterions={})


def _no_images(
    config: RunConfig, checkpoint: dict[str, Any], path: Path, device: torch.device
) -> Dataset:
    """A dataset of the checkpoint's classes, without images."""
    options = config.training_opt
    class_names = checkpoint.get("class_names") or list(map(str, range(options.num_classes or 0)))
    if not class_names:
        raise UserError(f"{path} does not say how many classes it knows; set num_classes by --opts")
    nothing = np.zeros((0, 1, 1, 3), dtype=np.uint8)
    subsets = {"all": _NONE}
    split = Split(_NONE, _NONE, _NONE, _NONE, _NONE, _NONE, None, None, "none", options.seed)
    return Dataset(
        source=Source("no images", class_names, [], _NONE, subsets, arrays=nothing),
        split=split,
        images=ArrayImages(nothing),
        manifest={},
        labels=torch.zeros(0, dtype=torch.int64, device=device),
        device=device,
        num_workers=choose_workers(options),
    )
