"""Load a config file, apply --opts, check every key, and write the resolved config."""

import copy
import importlib.util
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from engine.options import (
    AlternateOptions,
    CriterionOptions,
    DataOptions,
    HasherOptions,
    MemoryOptions,
    NetworkOptions,
    TrainingOptions,
    build_section,
)
from utils.atomic_file import write_text
from utils.errors import UserError, unknown_key

ENGINES = ("minibatch", "shallow", "alternate")
SECTIONS = (
    "training_opt", "data", "networks", "criterions", "memory", "engine", "hasher", "alternate",
)  # fmt: skip


@dataclass
class RunConfig:
    """A checked config; `path` is the file it came from."""

    path: str
    training_opt: TrainingOptions
    data: DataOptions
    networks: dict[str, NetworkOptions]
    criterions: dict[str, CriterionOptions]
    memory: MemoryOptions
    engine: str
    hasher: HasherOptions | None
    alternate: AlternateOptions | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the config file states them."""
        values = asdict(self)
        del values["path"]
        return values


def load_config(path: str, overrides: list[str] | None = None) -> RunConfig:
    """Read `path`, apply `overrides` (`KEY.KEY=VALUE`, VALUE in YAML) and check the result.

    Raises:
        UserError: if the file is missing or broken, or a key or value is not valid.
    """
    values = copy.deepcopy(_execute(Path(path)))
    for override in overrides or []:
        _apply(values, override)
    try:
        return check_config(values, path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def check_config(values: dict[str, Any], path: str) -> RunConfig:
    """Turn a config's dict into a checked `RunConfig`.

    Raises:
        UserError: for a key that nothing reads, a missing one, or a value that is not valid.
    """
    for key in values:
        if key not in SECTIONS:
            raise unknown_key(key, key, list(SECTIONS))
    training_opt = build_section(TrainingOptions, values.get("training_opt", {}), "training_opt")
    engine = values.get("engine", "minibatch")
    if engine not in ENGINES:
        raise UserError(f"engine is {engine!r}, expected one of {', '.join(ENGINES)}")
    hasher, alternate = values.get("hasher"), values.get("alternate")
    if engine == "alternate" and alternate is None:
        alternate = {}
    config = RunConfig(
        path=path,
        training_opt=training_opt,
        data=build_section(DataOptions, values.get("data", {}), "data"),
        networks=_named(NetworkOptions, values.get("networks", {}), "networks"),
        criterions=_named(CriterionOptions, values.get("criterions", {}), "criterions"),
        memory=build_section(MemoryOptions, values.get("memory", {}), "memory"),
        engine=engine,
        hasher=None if hasher is None else build_section(HasherOptions, hasher, "hasher"),
        alternate=None
        if alternate is None
        else build_section(AlternateOptions, alternate, "alternate"),
    )
    _check_parts(config)
    training_opt.log_dir = _fill(training_opt.log_dir, training_opt, "training_opt.log_dir")
    for name, network in config.networks.items():
        if network.weights:
            place = f"networks.{name}.weights"
            network.weights = _fill(network.weights, training_opt, place)
    if config.alternate and config.alternate.base:
        config.alternate.base = _fill(config.alternate.base, training_opt, "alternate.base")
    return config


def write_config(config: RunConfig, path: Path) -> None:
    """Write the resolved config as YAML."""
    plain = yaml.safe_dump(_plain(config.to_dict()), sort_keys=False)
    write_text(path, f"# resolved from {config.path}\n{plain}")


def _check_parts(config: RunConfig) -> None:
    if not config.networks and config.engine != "shallow":  # which may read a file of features
        raise UserError("networks is empty; name at least one network")
    if config.engine == "minibatch" and not config.criterions:
        raise UserError("criterions is empty; name at least one loss")
    if config.engine == "minibatch" and config.training_opt.num_epochs < 1:
        raise UserError(
            f"training_opt.num_epochs is {config.training_opt.num_epochs}, expected at least 1"
        )
    if (config.engine == "shallow") != (config.hasher is not None):
        raise UserError("engine 'shallow' and a hasher go together; give both or neither")
    if config.alternate:
        _check_alternate(config, config.alternate)


def _check_alternate(config: RunConfig, options: AlternateOptions) -> None:
    """The epochs of an alternating run follow from its turns."""
    if config.engine != "alternate":
        raise UserError("the section alternate is for engine 'alternate'; set engine, or drop it")
    if config.memory.centroids:
        raise UserError("engine 'alternate' keeps no memory; set memory.centroids=False")
    epochs = options.iterations * options.epochs
    if config.training_opt.num_epochs not in (0, epochs):
        raise UserError(
            f"training_opt.num_epochs is {config.training_opt.num_epochs}, but alternate has "
            f"{options.iterations} turns of {options.epochs} epochs; leave num_epochs out"
        )
    config.training_opt.num_epochs = epochs


def _named(kind: type[Any], values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UserError(f"{where} is {values!r}, expected a dict of names")
    return {name: build_section(kind, each, f"{where}.{name}") for name, each in values.items()}


def _execute(path: Path) -> dict[str, Any]:
    """Run a config file with its folder importable; siblings are read anew each time."""
    if not path.is_file():
        raise UserError(f"config file {path} does not exist; see the folder config/")
    folder = str(path.resolve().parent)
    spec = importlib.util.spec_from_file_location("run_config", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = set(sys.modules)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"config file {path}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
        for name in set(sys.modules) - before:  # `stage_1` of another folder is another file
            if str(getattr(sys.modules[name], "__file__", "")).startswith(folder):
                del sys.modules[name]
    values = getattr(module, "config", None)
    if not isinstance(values, dict):
        raise UserError(f"config file {path} does not end with config = {{...}}")
    return values


class _YamlLoader(yaml.SafeLoader):
    """YAML whose numbers may be written 1e-4, as Python users do."""


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one dotted key of the nested dict `values`."""
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"--opts {override}: expected KEY=VALUE, e.g. training_opt.seed=1")
    try:
        value = yaml.load(text, Loader=_YamlLoader)
    except yaml.YAMLError as error:
        raise UserError(f"--opts {override}: the value is not YAML") from error
    *parents, last = key.split(".")
    place = values
    for depth, parent in enumerate(parents):
        if not isinstance(place.get(parent), dict):
            if depth == 1 and parents[0] in ("networks", "criterions") and parent not in place:
                raise unknown_key(f"{key} in --opts", parent, list(place))
            place[parent] = {}
        place = place[parent]
    place[last] = value


def _fill(text: str, options: TrainingOptions, place: str) -> str:
    """Replace {name} by the training option of that name; several code lengths as 4-8-16."""
    lengths = "-".join(str(length) for length in options.code_lengths)
    try:
        return text.format(**asdict(options) | {"code_length": lengths})
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise UserError(
            f"{place} is '{text}': {error} names no training option to fill in"
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
