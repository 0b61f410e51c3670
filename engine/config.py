"""Load a config file, apply --opts, check every key, and write the resolved config."""

import importlib.util
import re
import string
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from engine.options import (
    MOST_EPOCHS,
    AlternateOptions,
    CriterionOptions,
    DataOptions,
    HasherOptions,
    MemoryOptions,
    NetworkOptions,
    TrainingOptions,
    build_section,
)
from engine.plain_values import check_text, plain_copy, shown
from utils.atomic_file import write_text
from utils.errors import UserError, unknown_key

ENGINES = ("minibatch", "shallow", "alternate")
SECTIONS = (
    "training_opt", "data", "networks", "criterions", "memory", "engine", "hasher", "alternate",
)  # fmt: skip
LONGEST_FORM = 4  # characters of a form such as 03d: it may ask for any width


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

    `path` is a config file, or the config.yaml that a run resolved one to.

    Raises:
        UserError: if the file is missing or broken, or a key or value is not valid.
    """
    check_text(path, "--config")
    values = read_values(Path(path))
    try:
        values = plain_copy(values)
        for override in overrides or []:
            _apply(values, override)
        return check_config(values, path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def check_config(values: dict[str, Any], path: str) -> RunConfig:
    """Turn a config's dict into a checked `RunConfig`.

    Raises:
        UserError: for a key that nothing reads, a missing one, or a value that is not valid.
    """
    values = plain_copy(values)
    for key in values:
        if key not in SECTIONS:
            raise unknown_key(key, key, list(SECTIONS))
    training_opt = build_section(TrainingOptions, values.get("training_opt", {}), "training_opt")
    engine = values.get("engine", "minibatch")
    if engine not in ENGINES:
        raise UserError(f"engine is {shown(engine)}, expected one of {', '.join(ENGINES)}")
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
        _check_untrained(config)
    if (config.engine == "shallow") != (config.hasher is not None):
        raise UserError("engine 'shallow' and a hasher go together; give both or neither")
    if config.alternate:
        _check_alternate(config, config.alternate)


def _check_untrained(config: RunConfig) -> None:
    """No epoch is enough where a memory is filled beside weights that are there."""
    weights = [network.weights for network in config.networks.values()]
    if not config.memory.centroids or None in weights:
        raise UserError(
            "training_opt.num_epochs is 0, expected at least 1, but for a memory "
            "(memory.centroids=True) beside weights of every network (networks.*.weights)"
        )


def _check_alternate(config: RunConfig, options: AlternateOptions) -> None:
    """The epochs of an alternating run follow from its turns."""
    if config.engine != "alternate":
        raise UserError("the section alternate is for engine 'alternate'; set engine, or drop it")
    if config.memory.centroids:
        raise UserError("engine 'alternate' keeps no memory; set memory.centroids=False")
    epochs = options.iterations * options.epochs
    if epochs > MOST_EPOCHS:
        raise UserError(
            f"alternate.iterations is {options.iterations} and alternate.epochs {options.epochs}, "
            f"expected at most {MOST_EPOCHS} epochs in all"
        )
    if config.training_opt.num_epochs not in (0, epochs):
        raise UserError(
            f"training_opt.num_epochs is {config.training_opt.num_epochs}, but alternate has "
            f"{options.iterations} turns of {options.epochs} epochs; leave num_epochs out"
        )
    config.training_opt.num_epochs = epochs


def _named(kind: type[Any], values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UserError(f"{where} is {shown(values)}, expected a dict of names")
    for name in values:
        if not name.isidentifier():  # networks are attributes, losses are tags and columns
            raise UserError(f"a name in {where} is {shown(name)}, expected letters, digits and _")
    return {name: build_section(kind, each, f"{where}.{name}") for name, each in values.items()}


def read_values(path: Path) -> dict[str, Any]:
    """What a config file states, unchecked.

    Raises:
        UserError: if the file is missing or broken.
    """
    if not path.is_file():
        raise UserError(f"config file {path} does not exist; see the folder config/")
    if path.suffix not in (".py", ".yaml", ".yml"):
        raise UserError(f"config file {path}: expected a name that ends in .py, or .yaml of a run")
    try:
        if path.suffix == ".py":
            values = _execute(path)
        else:
            values = yaml.load(path.read_text(encoding="utf-8"), Loader=_YamlLoader)
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())[:500]
        raise UserError(f"config file {path}: {type(error).__name__}: {reason}") from error
    if not isinstance(values, dict):
        expected = "end with config = {...}" if path.suffix == ".py" else "hold a dict"
        raise UserError(f"config file {path} does not {expected}")
    return values


def _execute(path: Path) -> Any:
    """Run a config file with its folder importable; siblings are read anew each time."""
    folder = str(path.resolve().parent)
    spec = importlib.util.spec_from_file_location("run_config", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = set(sys.modules)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
        for name in set(sys.modules) - before:  # `stage_1` of another folder is another file
            if str(getattr(sys.modules[name], "__file__", "")).startswith(folder):
                del sys.modules[name]
    return getattr(module, "config", None)


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
    check_text(key, "--opts")
    if not equals:
        given = shown(override)
        raise UserError(f"--opts {given}: expected KEY=VALUE, e.g. training_opt.seed=1")
    try:
        value = yaml.load(text, Loader=_YamlLoader)
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError,
            ValueError) as error:  # fmt: skip
        raise UserError(f"--opts {shown(key)}: {shown(text)} is not YAML") from error
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
    values = {**asdict(options), "code_length": lengths}
    known = [name for name, value in values.items() if not isinstance(value, dict | list)]
    try:
        for _, name, form, _ in string.Formatter().parse(text):
            if name is not None and name not in known:
                raise unknown_key(f"{place}: {{{name}}}", name, known)
            if form and len(form) > LONGEST_FORM:
                raise UserError(f"{place} is {shown(text)}, expected no form as {shown(form)}")
        return check_text(text.format(**values), place)
    except ValueError as error:
        raise UserError(f"{place} is {shown(text)}: {error}; write {{{{ for a brace") from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
