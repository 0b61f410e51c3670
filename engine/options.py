"""What a config may say: one dataclass a section, checked when it is built."""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from utils.errors import UserError, unknown_key

Section = TypeVar("Section")


@dataclass
class TrainingOptions:
    """`training_opt`: what is trained, for how long, and where the run is kept."""

    dataset: str
    method: str  # short name in the records: direct, lthnet, ours, ...
    code_length: int | list[int]  # bits; several lengths are learned in one run
    log_dir: str  # may name other values: logs/X/if{imbalance_factor}_{code_length}bits
    image_size: int  # pixels a side that the network sees
    num_epochs: int = 0
    batch_size: int = 64
    data_root: str | None = None  # else the environment variable LTH_DATA_ROOT, else ./data
    imbalance_factor: float | None = None  # None: the training images as they are
    num_classes: int | None = None  # None: as many as the data has
    feature_dim: int = 2000
    optimizer: dict[str, Any] = field(default_factory=lambda: {"name": "AdamW", "params": {}})
    scheduler: dict[str, Any] | None = None
    warmup_epochs: float = 0
    sampler: Literal["uniform", "class_aware"] = "uniform"
    augmentation: dict[str, Any] = field(default_factory=dict)
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # auto: bf16 on a GPU
    device: Literal["auto", "cpu", "cuda"] = "auto"
    accelerate: Literal["auto", "none", "graph", "compile"] = "auto"  # see engine/accelerate.py
    gradient_clip: float | None = None  # largest norm of the gradient
    evaluate_interval: int = 10  # epochs between validations; of engine 'alternate', turns
    evaluation_batch_size: int = 256
    on_bad_loss: Literal["stop", "skip"] = "stop"  # NaN or infinite: end, or drop the step
    mirror_codes: bool = False  # code the mean of an image's and its mirror image's outputs
    top_k: list[int] = field(default_factory=lambda: [100, 1000])  # K of MAP@K, precision@K
    num_workers: int | Literal["auto"] = "auto"  # processes that read images too large to hold
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_code_length()
        for name in ("image_size", "batch_size", "feature_dim"):
            _at_least(self, "training_opt", name, 1)
        for name in ("evaluate_interval", "evaluation_batch_size"):
            _at_least(self, "training_opt", name, 1)
        for name in ("num_epochs", "warmup_epochs", "seed"):
            _at_least(self, "training_opt", name, 0)
        if self.num_workers != "auto":
            _at_least(self, "training_opt", "num_workers", 0)
        if self.seed >= 2**32:
            raise UserError(f"training_opt.seed is {self.seed}, expected less than 2^32")
        if self.num_classes is not None:
            _at_least(self, "training_opt", "num_classes", 2)
        if self.imbalance_factor is not None:
            _at_least(self, "training_opt", "imbalance_factor", 1)
        if self.gradient_clip is not None and self.gradient_clip <= 0:
            raise UserError(
                f"training_opt.gradient_clip is {self.gradient_clip}, "
                "expected a norm above 0; use null for no clipping"
            )
        if not all(isinstance(k, int) and k > 0 for k in self.top_k):
            raise UserError(f"training_opt.top_k is {self.top_k}, expected whole numbers above 0")

    @property
    def code_lengths(self) -> list[int]:
        """The code lengths of the run, also where there is one."""
        return self.code_length if isinstance(self.code_length, list) else [self.code_length]

    @property
    def code_outputs(self) -> dict[int, str]:
        """What networks call the codes (B, q) of each length: `codes`, of several `codes_<q>`."""
        several = len(self.code_lengths) > 1
        return {length: f"codes_{length}" if several else "codes" for length in self.code_lengths}

    def _check_code_length(self) -> None:
        if not isinstance(self.code_length, int):  # a list of one is that one
            given = list(self.code_length)
            self.code_length = given[0] if len(given) == 1 else given
        lengths = self.code_lengths
        if not lengths or min(lengths) < 1 or len(set(lengths)) < len(lengths):
            raise UserError(
                f"training_opt.code_length is {self.code_length}, expected at least 1, "
                "or several different lengths"
            )


@dataclass
class DataOptions:
    """`data`: where images come from and which role each plays."""

    def_file: str
    params: dict[str, Any] = field(default_factory=dict)
    queries_per_class: int | None = None  # drawn where the data has no test images
    validation_per_class: int = 10
    protocol: str | None = None  # a published protocol, data/protocols/<name>.yaml
    train_classes: int | list[str] | None = None  # train on these only: the first n, or names
    n_max: int | None = None  # training images of the largest class; None: as many as all have
    mu: float | None = None  # Zipf exponent; None: the published one, else ln(IF) / ln(C)
    open_classes: int | list[str] = 0  # classes never trained on: a number, or names
    split_file: str | None = None  # a manifest to use instead of drawing a split
    cache_size: int | Literal["auto"] | None = "auto"  # side of images held decoded in memory
    decode: Literal["auto", "cpu", "gpu"] = "auto"  # of large JPEG files; auto: on a GPU if any
    on_leak: Literal["error", "warn"] = "error"

    def __post_init__(self) -> None:
        _at_least(self, "data", "validation_per_class", 1)
        for name in ("queries_per_class", "n_max"):
            if getattr(self, name) is not None:
                _at_least(self, "data", name, 1)


@dataclass
class NetworkOptions:
    """One entry of `networks`, applied in the order they are written."""

    def_file: str
    params: dict[str, Any] = field(default_factory=dict)
    optim_params: dict[str, Any] | None = None  # overrides the optimizer's, e.g. lr
    fix: bool = False  # frozen, batch statistics too
    weights: str | None = None  # None, 'default' (the library's), or a checkpoint file
    fresh: list[str] = field(default_factory=list)  # parts that `weights` need not hold
    fix_statistics: bool = False  # batch norms keep their statistics while weights are trained


@dataclass
class CriterionOptions:
    """One entry of `criterions`; the total loss is their weighted sum.

    In a run of several code lengths a loss of the codes counts once a length, by one weight or by
    one each, in the order of the lengths.
    """

    def_file: str
    loss_params: dict[str, Any] = field(default_factory=dict)
    optim_params: dict[str, Any] | None = None
    weight: float | list[float] = 1.0

    def __post_init__(self) -> None:
        weights = self.weight if isinstance(self.weight, list | tuple) else [self.weight]
        if not all(math.isfinite(weight) for weight in weights):
            raise UserError(f"a criterion's weight is {self.weight}, expected a finite number")


@dataclass
class MemoryOptions:
    """`memory`: rows a class that the meta-embedding can attend to."""

    centroids: bool = False
    dpp_samples: int = 0

    def __post_init__(self) -> None:
        _at_least(self, "memory", "dpp_samples", 0)
        if self.dpp_samples and not self.centroids:
            raise UserError(
                f"memory.dpp_samples is {self.dpp_samples} but memory.centroids is off; "
                "samples are chosen around centroids: set memory.centroids=True"
            )

    @property
    def rows_per_class(self) -> int:
        """Memory rows a class: its centroid and the samples; 0 without a memory."""
        return 1 + self.dpp_samples if self.centroids else 0


@dataclass
class AlternateOptions:
    """`alternate`: network and database codes learned in turn, by engine 'alternate'."""

    samples: int = 2000  # database images drawn for the network's turn
    iterations: int = 50  # turns of network and codes
    epochs: int = 3  # over the drawn images, in one turn
    sweeps: int = 1  # over the bits, in one turn of the codes
    dissimilar: float | Literal["auto"] = "auto"  # r: S is 1 or -r; auto: #similar / #dissimilar
    start: Literal["network", "classes"] = "network"  # the first codes: see engine/class_codes.py
    base: str | None = None  # a checkpoint whose database codes stay, as classes arrive

    def __post_init__(self) -> None:
        for name in ("iterations", "epochs", "sweeps"):
            _at_least(self, "alternate", name, 1)
        _at_least(self, "alternate", "samples", 2)
        if self.dissimilar != "auto":
            _at_least(self, "alternate", "dissimilar", 0)


@dataclass
class HasherOptions:
    """`hasher`: the shallow method of engine 'shallow'."""

    def_file: str
    params: dict[str, Any] = field(default_factory=dict)
    standardize: bool = False  # features, by one mean and one deviation over the database


def build_section(kind: type[Section], values: Any, where: str) -> Section:
    """Build the options dataclass `kind` from a config's dict.

    Args:
        where: dotted place of the dict in the config, for messages.

    Raises:
        UserError: for an unknown key (with the nearest valid one), a missing key, a value of the
            wrong type or out of range.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where} is {values!r}, expected a dict")
    hints = typing.get_type_hints(kind)
    for key, value in values.items():
        if key not in hints:
            raise unknown_key(f"{where}.{key}", key, list(hints))
        if not fits(value, hints[key]):
            raise UserError(f"{where}.{key} is {value!r}, expected {_describe(hints[key])}")
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    missing = [f.name for f in fields if _required(f) and f.name not in values]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}; add it to the config")
    return kind(**values)


def _required(option: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return option.default is missing and option.default_factory is missing


def _at_least(options: object, section: str, name: str, least: int) -> None:
    value = getattr(options, name)
    if not value >= least:  # as NaN is
        raise UserError(f"{section}.{name} is {value}, expected at least {least}")


def fits(value: Any, hint: Any) -> bool:
    """Whether `value` is of the annotated type; a whole number is a fine float."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, each) for each in arguments)
    if origin is Literal:
        return value in arguments
    if origin is list:
        return isinstance(value, list | tuple) and all(fits(v, arguments[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        return isinstance(value, int | float)
    return isinstance(value, hint)


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(each) for each in arguments)
    if origin is Literal:
        return " or ".join(repr(each) for each in arguments)
    if origin is list:
        return f"a list of {_describe(arguments[0])}"
    if origin is dict:
        return "a dict"
    names = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}
    return names.get(hint, "None")
