"""A short name for what a config learns and how it codes, so that a table mixes no two of them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.checkpoint import load_checkpoint
from engine.config import RunConfig, check_config
from engine.flat_options import PLACE_AND_SPEED, flat_defaults, flat_values, is_start
from utils.errors import UserError

LENGTH = 12  # hexadecimal digits
CELL = tuple(  # what a record has in columns of its own
    f"training_opt.{name}" for name in ("dataset", "method", "imbalance_factor", "seed")
)
APART = (*PLACE_AND_SPEED, *CELL, "training_opt.top_k", "data.on_leak")  # no part of the method


def recipe(config: RunConfig, starts: Mapping[Path, str] | None = None) -> str:
    """Hexadecimal digits that differ where two configs differ in more than APART names.

    The code length is apart, too, but for lengths that are learned together. An option of
    engine/options.py that is its default counts as left out, so that new options change no name;
    nor do changes of a default or of code, which the commit tells.

    Args:
        starts: the recipes of the files of weights that the config starts from; a file of another
            project, or of none known, counts by its name.
    """
    chosen = _chosen(config)
    for key, path in _files(config).items():
        chosen[key] = (starts or {}).get(path) or path.name
    text = json.dumps(chosen, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def recipes_of_starts(config: RunConfig) -> dict[Path, str]:
    """The recipes that the checkpoints name which a config starts from."""
    return {path: _recipe_of(path) for path in set(_files(config).values())}


def checkpoint_recipe(config: RunConfig, checkpoint: dict[str, Any]) -> str:
    """The recipe of a checkpoint; '' if the config tests it as something that it is not."""
    try:
        trained = check_config(checkpoint["config"], "checkpoint")
    except (UserError, KeyError):  # of another project, or an earlier version
        return ""
    same = _chosen(trained) == _chosen(config) and _cell(trained) == _cell(config)
    return str(checkpoint.get("recipe", "")) if same else ""


def _chosen(config: RunConfig) -> dict[str, Any]:
    """What a config says beyond defaults, without APART and where it starts."""
    defaults, options = flat_defaults(config), config.training_opt
    found = {
        key: _canonical(value)
        for key, value in flat_values(config.to_dict()).items()
        if not _is_left_out(key, value, defaults)
        and key not in (*APART, "training_opt.code_length")
        and (not is_start(key) or value == "default")
    }
    if len(options.code_lengths) > 1:
        found["training_opt.code_length"] = options.code_lengths
    return {**found, "networks": list(config.networks)}  # their order counts


def _cell(config: RunConfig) -> dict[str, Any]:
    """What a row of a record says beside the recipe, of what was trained."""
    options = flat_values(config.to_dict())
    return {key: options.get(key) for key in (*CELL, "training_opt.code_length")}


def _is_left_out(key: str, value: Any, defaults: dict[str, Any]) -> bool:
    """Whether an option is its default, or a section is not there; None in params is neither."""
    return value == defaults[key] if key in defaults else value is None and "." not in key


def _files(config: RunConfig) -> dict[str, Path]:
    """The files of weights that a config starts from, by their options."""
    return {
        key: Path(value)
        for key, value in flat_values(config.to_dict()).items()
        if is_start(key) and value not in (None, "default")
    }


def _recipe_of(path: Path) -> str:
    try:
        return str(load_checkpoint(path).get("recipe", ""))
    except UserError:  # said where it is loaded
        return ""


def _canonical(value: Any) -> Any:
    """One form of equal values: 1 and 1.0 are."""
    if isinstance(value, list):
        return [_canonical(each) for each in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
