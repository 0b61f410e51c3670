"""A config's options by their dotted keys, to compare what two configs ask for."""

from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from engine.config import RunConfig

# What says where a run is and how fast it goes, and changes nothing that it learns.
PLACE_AND_SPEED = (
    *(
        f"training_opt.{name}"
        for name in (
            *("log_dir", "data_root", "device", "accelerate", "num_workers"),
            "evaluation_batch_size",
        )
    ),
    "data.decode",
)


def is_start(key: str) -> bool:
    """Whether an option names a file of weights to build on."""
    return is_weights(key) or key == "alternate.base"


def is_weights(key: str) -> bool:
    """Whether an option names the file that a network has its first weights from."""
    parts = key.split(".")
    return len(parts) == 3 and parts[0] == "networks" and parts[2] == "weights"


def flat_defaults(config: RunConfig) -> dict[str, Any]:
    """The options of all sections that a config may leave out, by their dotted keys."""
    sections: dict[str, Any] = {field.name: getattr(config, field.name) for field in fields(config)}
    for group in ("networks", "criterions"):
        sections |= {f"{group}.{name}": each for name, each in sections.pop(group).items()}
    found: dict[str, Any] = {}
    for name, section in sections.items():
        for field in fields(section) if is_dataclass(section) else ():
            if field.default is not MISSING:
                found[f"{name}.{field.name}"] = field.default
            elif field.default_factory is not MISSING:
                found |= flat_values(field.default_factory(), f"{name}.{field.name}.")
    return found


def flat_values(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as dotted keys, nothing for empty ones; tuples as lists, for comparison."""
    if isinstance(values, dict):
        parts = (flat_values(value, f"{prefix}{key}.") for key, value in values.items())
        return {key: value for part in parts for key, value in part.items()}
    return {prefix[:-1]: list(values) if isinstance(values, tuple) else values}
