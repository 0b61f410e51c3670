"""What a config may say: one dataclass a section, checked when it is built."""

import dataclasses
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from engine.plain_values import shown
from utils.errors import UserError, unknown_key

Section = TypeVar("Section")

# More is a slip of the keyboard: it would fill any machine's memory, or never end.
MOST_BITS = 4096
MOST_LENGTHS = 64
MOST_FEATURES = 16_384  # four times AlexNet's; the selector has their square as weights
MOST_PIXELS = 4096  # a side: one image is 200 MB as float32
MOST_IMAGES = 65_536  # a batch
MOST_EPOCHS = 1_000_000
MOST_WORKERS = 1024
MOST_SAMPLES = 1000  # a class, in the memory
MOST_DRAWN = 10_000_000  # a turn of engine 'alternate'
MOST_RANKS = 10_000_000  # K of MAP@K; tables are as long
MOST_CUTOFFS = 100


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
    final_epochs: int = 0  # the last ones, for which final_augmentation changes augmentation
    final_augmentation: dict[str, Any] = field(default_factory=dict)
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # auto: bf16 on a GPU
    device: Literal["auto", "cpu", "cuda"] = "auto"
    accelerate: Literal["auto", "none", "graph", "compile"] = "auto"  # see engine/accelerate.py
    gradient_clip: float | None = None  # largest norm of the gradient
    evaluate_interval: int = 10  # epochs between validations; of engine 'alternate', turns
    evaluation_batch_size: int = 256  # on a CPU 32 at most: engine/coding.py
    on_bad_loss: Literal["stop", "skip"] = "stop"  # NaN or infinite: end, or drop the step
    mirror_codes: bool = False  # code the mean of an image's and its mirror image's outputs
    top_k: list[int] = field(default_factory=lambda: [100, 1000])  # K of MAP@K, precision@K
    num_workers: int | Literal["auto"] = "auto"  # processes that read images too large to hold
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_code_length()
        for name, least, most in (
            ("image_size", 1, MOST_PIXELS),
            ("batch_size", 2, MOST_IMAGES),  # batch statistics need two
            ("evaluation_batch_size", 1, MOST_IMAGES),
            ("feature_dim", 1, MOST_FEATURES),
            ("evaluate_interval", 1, None),
            ("num_epochs", 0, MOST_EPOCHS),
            ("warmup_epochs", 0, MOST_EPOCHS),
            ("final_epochs", 0, MOST_EPOCHS),
            ("seed", 0, 2**32 - 1),
            ("num_workers", 0, MOST_WORKERS),
            ("num_classes", 2, None),
            ("imbalance_factor", 1, None),
        ):
            _within(self, "training_opt", name, least, most)
        if self.gradient_clip is not None and self.gradient_clip <= 0:
            raise UserError(
                f"training_opt.gradient_clip is {self.gradient_clip}, "
                "expected a norm above 0; use null for no clipping"
            )
        if self.final_epochs and not self.final_augmentation:
            raise UserError(
                f"training_opt.final_epochs is {self.final_epochs}, but final_augmentation is "
                "empty; say what changes, such as {'trivial_augment': False}"
            )
        if not all(0 < k <= MOST_RANKS for k in self.top_k) or len(self.top_k) > MOST_CUTOFFS:
            raise UserError(
                f"training_opt.top_k is {shown(self.top_k)}, expected at most {MOST_CUTOFFS} whole "
                f"numbers above 0 and up to {MOST_RANKS}"
            )

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
        fits = all(1 <= length <= MOST_BITS for length in lengths)
        if not fits or not 0 < len(lengths) <= MOST_LENGTHS or len(set(lengths)) < len(lengths):
            raise UserError(
                f"training_opt.code_length is {shown(self.code_length)}, expected at least 1 and "
                f"at most {MOST_BITS}, or several different lengths"
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
        for name in ("validation_per_class", "queries_per_class", "n_max"):
            _within(self, "data", name, 1)
        _within(self, "data", "cache_size", 1, MOST_PIXELS)


@dataclass
class NetworkOptions:
    """One entry of `networks`, applied in the order they are written."""

    def_file: str
    params: dict[str, Any] = field(default_factory=dict)
    optim_params: dict[str, Any] | None = None  # overrides the optimizer's, e.g. lr
    fix: bool = False  # frozen, batch statistics too
    weights: str | None = None  # None, 'default' (the library's), or a checkpoint file
    fresh: list[str] = field(default_factory=list)  # not needed in `weights`; nor is a memory
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


@dataclass
class MemoryOptions:
    """`memory`: rows a class that the meta-embedding can attend to."""

    centroids: bool = False
    dpp_samples: int = 0

    def __post_init__(self) -> None:
        _within(self, "memory", "dpp_samples", 0, MOST_SAMPLES)
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
            _within(self, "alternate", name, 1, MOST_EPOCHS)
        _within(self, "alternate", "samples", 2, MOST_DRAWN)
        _within(self, "alternate", "dissimilar", 0)


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
        raise UserError(f"{where} is {shown(values)}, expected a dict")
    hints = typing.get_type_hints(kind)
    for key, value in values.items():
        if key not in hints:
            raise unknown_key(f"{where}.{key}", key, list(hints))
        if not fits(value, hints[key]):
            raise UserError(f"{where}.{key} is {shown(value)}, expected {describe(hints[key])}")
        if value == "":
            raise UserError(f"{where}.{key} is empty; name it, or leave it out")
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    missing = [f.name for f in fields if _required(f) and f.name not in values]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}; add it to the config")
    return kind(**values)


def _required(option: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return option.default is missing and option.default_factory is missing


def _within(
    options: object, section: str, name: str, least: float, most: float | None = None
) -> None:
    """Refuse a number out of range; None and 'auto' are none."""
    value = getattr(options, name)
    if value is None or isinstance(value, str):
        return
    if not value >= least:  # as NaN is
        raise UserError(f"{section}.{name} is {value}, expected at least {least}")
    if most is not None and value > most:
        raise UserError(f"{section}.{name} is {value}, expected at most {most}")


def fits(value: Any, hint: Any) -> bool:
    """Whether `value` is of the annotated type; a whole number is a fine float."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, each) for each in arguments)
    if origin is Literal:
        return value in arguments
    if origin in (list, tuple, Sequence):
        return isinstance(value, list | tuple) and all(fits(v, arguments[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        return isinstance(value, int | float)
    return isinstance(value, hint) if isinstance(hint, type) else True


def describe(hint: Any) -> str:
    """What the annotated type asks for, in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(each) for each in arguments)
    if origin is Literal:
        return " or ".join(repr(each) for each in arguments)
    if origin in (list, tuple, Sequence):
        return f"a list of {describe(arguments[0])}"
    if origin is dict:
        return "a dict"
    names = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}
    return names.get(hint, "None")
