"""Turn a config's entries into objects: every `def_file` is found, checked and called here."""

import inspect
import typing
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from engine.config import RunConfig
from engine.options import (
    MOST_BITS,
    MOST_FEATURES,
    MOST_PIXELS,
    CriterionOptions,
    NetworkOptions,
    TrainingOptions,
    describe,
    fits,
)
from engine.plain_values import shown
from utils.def_file import call, check_params, load_function
from utils.errors import UserError, unknown_key

TRIED_STEPS = 8
MOST_OF_PARAMS = {  # which may say otherwise than the training options
    "code_length": MOST_BITS, "feature_dim": MOST_FEATURES, "image_size": MOST_PIXELS,
}  # fmt: skip
WITHOUT_STEPS = (torch.optim.lr_scheduler.ReduceLROnPlateau,)  # waits for a score


def check_config_parts(config: RunConfig) -> None:
    """Find every `def_file` and check every params key, before any data is touched.

    Raises:
        UserError: naming the file, the key and the nearest valid one.
    """
    try:
        _check_optimizer(config.training_opt)
        where = "data"
        source = load_function(config.data.def_file, "create_source", where)
        _check_values(source, config.data.params, f"{where}.params")
        for name, network in config.networks.items():
            where = f"networks.{name}"
            if hasattr(nn.Sequential(), name):  # it becomes an attribute
                raise UserError(f"{where}: torch has a use of its own for this name; take another")
            create = load_function(network.def_file, "create_model", where)
            _check_values(create, network.params, f"{where}.params")
            _check_code_length(config.training_opt, create, where)
            _check_optim_params(config.training_opt, network.optim_params, where)
        for name, criterion in config.criterions.items():
            where = f"criterions.{name}"
            create = load_function(criterion.def_file, "create_loss", where)
            _check_values(create, criterion.loss_params, f"{where}.loss_params")
            _check_optim_params(config.training_opt, criterion.optim_params, where)
        if config.hasher:
            create = load_function(config.hasher.def_file, "create_model", "hasher")
            _check_values(create, config.hasher.params, "hasher.params")
        _check_augmentation(config.training_opt, "augmentation")
        _check_augmentation(config.training_opt, "final_augmentation")
    except UserError as error:
        raise UserError(f"{config.path}: {error}") from error


def _check_values(function: Callable[..., Any], params: dict[str, Any], where: str) -> None:
    """Check the names of params, and their values as far as the function's annotations say."""
    check_params(function, params, where)
    hints = _hints(function)
    for key, value in params.items():
        if not fits(value, hints.get(key, Any)):
            expected = describe(hints[key])
            raise UserError(f"{where}.{key} is {shown(value)}, expected {expected}")
        if key in MOST_OF_PARAMS and isinstance(value, int) and value > MOST_OF_PARAMS[key]:
            raise UserError(f"{where}.{key} is {value}, expected at most {MOST_OF_PARAMS[key]}")


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotated types by parameter; none where they name what cannot be found."""
    try:
        return typing.get_type_hints(function)
    except Exception:
        return {}


def build_networks(config: RunConfig, num_classes: int) -> nn.Sequential:
    """Build `networks` in their order; each is told the size of what comes before it.

    The library's own weights (`weights: 'default'`) are loaded here, checkpoints are not.
    """
    options = config.training_opt
    supplied: dict[str, Any] = {
        "num_classes": num_classes,
        "code_length": options.code_length,
        "feature_dim": options.feature_dim,
        "image_size": options.image_size,
        "memory_rows": config.memory.rows_per_class * num_classes,
    }
    networks: OrderedDict[str, nn.Module] = OrderedDict()
    for name, network in config.networks.items():
        where = f"networks.{name}"
        create = load_function(network.def_file, "create_model", where)
        networks[name] = call(create, _with_weights(network, create, where), supplied, where)
        _check_module(networks[name], network.def_file, where)
        supplied.pop("in_features", None)  # a network of unknown width must be told by params
        if hasattr(networks[name], "out_features"):
            supplied["in_features"] = networks[name].out_features
    model = nn.Sequential(networks)
    if config.memory.centroids and not hasattr(model[-1], "set_memory"):
        raise UserError(
            "memory.centroids is on, but the last network has no memory; "
            "use models/meta_embedding_head.py or turn the memory off"
        )
    for name, network in config.networks.items():
        if network.fix:
            model.get_submodule(name).requires_grad_(False)
    return model


def _with_weights(
    network: NetworkOptions, create: Callable[..., Any], where: str
) -> dict[str, Any]:
    """The network's params, with `pretrained` where the library's weights are asked for."""
    if network.weights != "default":
        return network.params
    if "pretrained" not in inspect.signature(create).parameters:
        raise UserError(f"{where}.weights is 'default', but {network.def_file} has none; use None")
    return {**network.params, "pretrained": True}


def _check_module(given: object, def_file: str, where: str) -> None:
    if not isinstance(given, nn.Module):
        raise UserError(f"{where}: {def_file} makes {shown(given)}, expected a torch.nn.Module")
    for name, weights in given.named_parameters():
        if 0 in weights.shape:
            raise UserError(
                f"{where}: {def_file} makes weights without elements, {name}; see params"
            )


@dataclass
class Criterion:
    """A loss with its weight, and the names of the outputs that its `forward` asks for.

    `option` is its name in the config; a run of several code lengths has a loss a length by it.
    """

    loss: nn.Module
    weight: float
    inputs: list[str]
    option: str = ""


class LossOfLength(nn.Module):
    """A loss that reads the codes of one length among several as `codes`."""

    def __init__(self, loss: nn.Module, output: str) -> None:
        super().__init__()
        self.loss = loss
        self.output = output

    def forward(self, **given: Tensor) -> Tensor:
        codes = given.pop(self.output)
        return self.loss(codes=codes, **given)


def build_criterions(
    config: RunConfig, num_classes: int, class_counts: Tensor, device: torch.device
) -> dict[str, Criterion]:
    """Build `criterions`; `class_counts` (C,) are the training images per class.

    In a run of several code lengths a loss that reads `codes` is built once a length, as
    `name/<q>bits`.

    Raises:
        UserError: if a loss cannot be built, or has weights of another number than code lengths.
    """
    lengths = config.training_opt.code_lengths
    supplied: dict[str, Any] = {"num_classes": num_classes, "class_counts": class_counts}
    if config.alternate:
        supplied["samples"] = config.alternate.samples
    criterions = {}
    for name, options in config.criterions.items():
        where = f"criterions.{name}"
        create = load_function(options.def_file, "create_loss", where)
        weights = _weights(options, lengths, where)
        for length, weight in zip(lengths, weights, strict=True):
            given = {**supplied, "code_length": length}
            loss = call(create, options.loss_params, given, where)
            _check_module(loss, options.def_file, where)
            loss = loss.to(device)
            inputs = list(inspect.signature(loss.forward).parameters)
            if len(lengths) == 1 or "codes" not in inputs:
                criterions[name] = Criterion(loss, weight, inputs, name)
                break
            of_length = LossOfLength(loss, config.training_opt.code_outputs[length])
            inputs[inputs.index("codes")] = of_length.output
            criterions[f"{name}/{length}bits"] = Criterion(of_length, weight, inputs, name)
    return criterions


def _weights(options: CriterionOptions, lengths: list[int], where: str) -> list[float]:
    """The weight of a loss for each code length."""
    if not isinstance(options.weight, list | tuple):
        return [options.weight] * len(lengths)
    if len(options.weight) != len(lengths):
        raise UserError(
            f"{where}.weight is {options.weight}, expected one number, or one a code length "
            f"of {lengths}"
        )
    return list(options.weight)


def build_optimizer(
    config: RunConfig, model: nn.Sequential, criterions: dict[str, Criterion]
) -> torch.optim.Optimizer:
    """Any optimizer of torch.optim by name, one parameter group a network or loss.

    On a GPU its fused form is taken, if it has one and the config does not choose another.

    Raises:
        UserError: if its parameters are not valid, or nothing is left to train.
    """
    options = config.training_opt.optimizer
    groups: list[dict[str, Any]] = []
    for name, network in config.networks.items():
        parameters = _largest_first(model.get_submodule(name))
        if parameters:
            groups.append({"params": parameters, "name": name, **(network.optim_params or {})})
    for name, criterion in criterions.items():
        optim_params = config.criterions[criterion.option].optim_params
        parameters = _largest_first(criterion.loss)
        if parameters:
            groups.append({"params": parameters, "name": name, **(optim_params or {})})
        elif optim_params:
            raise UserError(
                f"criterions.{criterion.option}.optim_params: this loss has no parameters; drop it"
            )
    if not groups:
        raise UserError("every network is fixed and no loss has parameters: nothing to train")
    kind, params = getattr(torch.optim, options["name"]), dict(options.get("params", {}))
    on_gpu = all(parameter.is_cuda for group in groups for parameter in group["params"])
    has_fused = on_gpu and "fused" in inspect.signature(kind).parameters
    if has_fused and params.keys().isdisjoint(("foreach", "fused", "differentiable")):
        params["fused"] = True
    with _blaming("training_opt.optimizer", options):
        return kind(groups, **params)


def _largest_first(module: nn.Module) -> list[nn.Parameter]:
    """What is to be trained, in the order that fused optimizers are fastest in.

    A launch takes some thirty tensors and lasts as long as the largest of them.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return sorted(trained, key=torch.numel, reverse=True)


def build_scheduler(
    options: TrainingOptions, optimizer: torch.optim.Optimizer, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Linear warm-up, then any scheduler of torch by name; both advance once a step.

    Scheduler parameters that count time (T_max, step_size, milestones, T_0, total_iters) are in
    epochs after the warm-up; T_max and total_iters default to all that remain.
    """
    schedulers = torch.optim.lr_scheduler
    given = options.scheduler or {"name": "ConstantLR", "params": {"factor": 1.0}}
    warmup = round(options.warmup_epochs * steps_per_epoch)
    remaining = max(1, options.num_epochs * steps_per_epoch - warmup)
    with _blaming("training_opt.scheduler", given):
        kind = getattr(schedulers, given["name"])
        params = _in_steps(given.get("params", {}), steps_per_epoch)
        for name in ("T_max", "total_iters"):
            if name in inspect.signature(kind).parameters:
                params.setdefault(name, remaining)
        if warmup == 0:
            return kind(optimizer, **params)
        rise = schedulers.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
        return schedulers.SequentialLR(optimizer, [rise, kind(optimizer, **params)], [warmup])


def _in_steps(params: dict[str, Any], steps_per_epoch: int) -> dict[str, Any]:
    """Convert the scheduler parameters that count epochs to steps."""
    converted = dict(params)
    for name in ("T_max", "step_size", "T_0", "total_iters"):
        if name in converted:
            converted[name] = round(converted[name] * steps_per_epoch)
    if "milestones" in converted:
        converted["milestones"] = [round(m * steps_per_epoch) for m in converted["milestones"]]
    return converted


def _check_optimizer(options: TrainingOptions) -> None:
    """Check the names and parameter names of optimizer and scheduler."""
    schedulers = torch.optim.lr_scheduler
    libraries: list[tuple[str, dict[str, Any] | None, Any, type, tuple[type, ...]]] = [
        ("optimizer", options.optimizer, torch.optim, torch.optim.Optimizer, ()),
        ("scheduler", options.scheduler, schedulers, schedulers.LRScheduler, WITHOUT_STEPS),
    ]
    for key, given, library, kind, excluded in libraries:
        where = f"training_opt.{key}"
        if given is None:
            continue
        for each in given:
            if each not in ("name", "params"):
                raise unknown_key(f"{where}.{each}", each, ["name", "params"])
        if not isinstance(given.get("params", {}), dict):
            raise UserError(f"{where}.params is {shown(given['params'])}, expected a dict")
        classes = {n: c for n, c in vars(library).items() if inspect.isclass(c)}
        names = [
            n for n, c in classes.items() if issubclass(c, kind) and c not in (kind, *excluded)
        ]
        if given.get("name") not in names:
            name = shown(given.get("name"))
            raise unknown_key(f"{where}.name={name}", name, names)
        check_params(getattr(library, given["name"]), given.get("params", {}), f"{where}.params")
    _try_steps(options, {}, "training_opt.optimizer")


def _try_steps(options: TrainingOptions, group: dict[str, Any], where: str) -> None:
    """Take steps with weights of no use: many values are looked at there first.

    Args:
        group: what a network or loss says instead of the optimizer's params, at `where`.
    """
    weights = nn.Parameter(torch.ones(2, 2))
    given = group or options.optimizer
    with _blaming(where, given):
        kind = getattr(torch.optim, options.optimizer["name"])
        optimizer = kind([weights], **{**options.optimizer.get("params", {}), **group})
        _steps(optimizer, weights)
    options = replace(options, warmup_epochs=min(options.warmup_epochs, 1))
    scheduler = build_scheduler(options, optimizer, steps_per_epoch=1)
    with _blaming("training_opt.scheduler", options.scheduler):
        _steps(optimizer, weights, scheduler)


def _steps(optimizer: Any, weights: nn.Parameter, scheduler: Any = None) -> None:
    nn.init.ones_(weights)
    for _ in range(TRIED_STEPS):
        weights.grad = torch.ones_like(weights)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    if not weights.isfinite().all():
        raise ValueError("its steps lead to infinity; lower the rates")


@contextmanager
def _blaming(where: str, given: Any) -> Iterator[None]:
    """Make of whatever a library raises a UserError that names the part of the config."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{where} {shown(given)}: {reason}") from error


def _check_code_length(options: TrainingOptions, create: Callable[..., Any], where: str) -> None:
    """Refuse a part whose `code_length` is one number, by its annotation, several, and conversely.

    A part that is not annotated is taken at its word.
    """
    hint = _hints(create).get("code_length", Any)
    if not fits(options.code_length, hint):
        takes = "one code length" if fits(1, hint) else "several code lengths"
        raise UserError(
            f"{where} takes {takes}, but training_opt.code_length is {options.code_length}; "
            "use another network or loss, or other lengths"
        )


def _check_optim_params(
    options: TrainingOptions, params: dict[str, Any] | None, where: str
) -> None:
    """Check the parameter names by which a network or loss overrides the optimizer's."""
    optimizer = getattr(torch.optim, options.optimizer["name"])
    check_params(optimizer, params or {}, f"{where}.optim_params")
    if params:
        _try_steps(options, params, f"{where}.optim_params")


def _check_augmentation(options: TrainingOptions, name: str) -> None:
    """Check one of `training_opt`'s augmentations; size and normalisation stand elsewhere."""
    fits: dict[str, tuple[Callable[[Any], bool], str]] = {
        "crop_scale": (_are_shares, "two numbers above 0 and up to 1, the smaller first"),
        "crop_ratio": (_are_ratios, "two numbers from 0.01 to 100, the smaller first"),
        "flip": (lambda value: isinstance(value, bool), "True or False"),
        "color_jitter": (_are_strengths, "four numbers from 0 to 10, hue's to 0.5"),
        "trivial_augment": (lambda value: isinstance(value, bool), "True or False"),
        "interpolation": (lambda value: value in ("bilinear", "bicubic"), "bilinear or bicubic"),
        "crop_fraction": (lambda value: _are_numbers([value]) and 0 < value <= 1, "0 < share <= 1"),
    }
    for key, value in getattr(options, name).items():
        where = f"training_opt.{name}.{key}"
        if key not in fits:
            raise unknown_key(where, key, list(fits))
        fit, expected = fits[key]
        if not fit(value):
            raise UserError(f"{where} is {shown(value)}, expected {expected}")


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )


def _are_shares(values: Any) -> bool:
    return _are_numbers(values) and len(values) == 2 and 0 < values[0] <= values[1] <= 1


def _are_ratios(values: Any) -> bool:
    return _are_numbers(values) and len(values) == 2 and 0.01 <= values[0] <= values[1] <= 100


def _are_strengths(values: Any) -> bool:
    fits = _are_numbers(values) and len(values) == 4
    return fits and min(values) >= 0 and max(values) <= 10 and values[3] <= 0.5
