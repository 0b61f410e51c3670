"""A short name for what a config learns and how it codes, so that a table mixes no two of them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.config import RunConfig, load_config
from engine.flat_options import flat_defaults, flat_values
from utils.errors import UserError

LENGTH = 12  # hexadecimal digits
# What a record has in columns of its own, and what changes places or speed alone.
APART = (
    *("dataset", "method", "imbalance_factor", "code_length", "seed", "top_k"),
    *("log_dir", "data_root", "device", "accelerate", "num_workers", "decode"),
    "evaluation_batch_size",
)
STARTS = ("weights", "base")  # files of another run's network


def recipe(config: RunConfig, planned: Mapping[str, RunConfig] | None = None) -> str:
    """Hexadecimal digits that differ where two configs differ in more than APART names.

    An option that is its default counts as left out, so that new options change no name. Weights
    of another run count by that run's recipe, from the config.yaml beside them, and else by their
    file's name.

    Args:
        planned: configs of runs that are still to come, by their log_dir.
    """
    defaults = flat_defaults(config)
    chosen = {
        key: _canonical(value)
        for key, value in flat_values(config.to_dict()).items()
        if value != defaults.get(key) and key.rpartition(".")[2] not in APART
    }
    for key, value in chosen.items():
        if key.rpartition(".")[2] in STARTS and value != "default":
            chosen[key] = _origin(Path(value), planned or {})
    chosen["networks"] = list(config.networks)  # their order counts
    text = json.dumps(chosen, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def _origin(weights: Path, planned: Mapping[str, RunConfig]) -> str:
    """The recipe of the run that left the weights, or their file's name."""
    known = {Path(folder): config for folder, config in planned.items()}
    config = known.get(weights.parent)
    try:
        config = config or load_config(str(weights.parent / "config.yaml"))
    except UserError:  # of another project, or published
        return weights.name
    return recipe(config, planned)


def _canonical(value: Any) -> Any:
    """One form of equal values: 1 and 1.0 are."""
    if isinstance(value, list):
        return [_canonical(each) for each in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
