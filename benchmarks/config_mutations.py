"""Mutations of shipped configs: each has one thing wrong, drawn by a random.Random."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from inspect import isclass, signature
from math import inf, nan
from pathlib import PurePosixPath
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch

from data.augment import Augmentation
from engine.config import load_config, read_values
from engine.options import AlternateOptions, DataOptions, MemoryOptions, TrainingOptions
from utils.def_file import PROJECT, load_function

HEADER = "from math import inf, nan\nfrom pathlib import PurePosixPath\n\n"
SHIPPED = sorted(str(path.relative_to(PROJECT)) for path in PROJECT.glob("config/*/*.py"))

NUMBERS = [0, 1, -1, 2**31, 2**63, 10**12, 10**30, 10**5000, -(10**12), 0.5, 1e-300, 1e300,
           -1e300, nan, inf, -inf]  # fmt: skip
TEXTS = ["", " ", "x" * 300, "x/" * 5000, "\0", "a\nb", "é漢字\u202e", "\ud800", "{nope}", "{seed",
         "{seed:>9999999999}", "{0}", "nan", "1e9", "None"]  # fmt: skip
CONTAINERS = [[], {}, (), [[]], {"": 0}, {1: 2}, {"name": {"params": []}}, [nan], [None, "x"],
              [0] * 10_000]  # fmt: skip
OTHERS = [None, True, False, b"x", 1j, {1, 2}, PurePosixPath("x")]
OVERRIDES = ["", "[", "{", "]", "&a [*a]", "!!python/object:os.system x", "!!timestamp x",
             "!!int x", "!!bool x", "!!set {a, b}", "2020-13-45", "2020-01-01", "[" * 2000,
             "{?: 1}", "=", "*a", "1e400", "0x" + "f" * 5000, "\t", "%", "- x", "'"]  # fmt: skip
OPTIONS: dict[str, type] = {"training_opt": TrainingOptions, "data": DataOptions,
                            "memory": MemoryOptions, "alternate": AlternateOptions}  # fmt: skip
LEFT = ["def_file", "params", "log_dir", "optimizer", "scheduler", "augmentation", "image_size"]
BROKEN_PARTS = {
    "raises_on_import.py": "raise RuntimeError('on import,\\nin two lines')",
    "exits_on_import.py": "raise SystemExit(3)",
    "syntax_error.py": "def create_model(:",
    "imports_nothing.py": "import no_such_module_of_anyone",
    "defines_nothing.py": "",
    "defines_no_function.py": "create_model = create_loss = create_source = 5",
    "raises.py": "def create_model(): raise KeyError('when\\ncalled')\n"
    "create_loss = create_source = create_model",
    "gives_none.py": "def create_model(): return None\ncreate_loss = create_source = create_model",
    "asks_for_more.py": "def create_model(*, more): return more\n"
    "create_loss = create_source = create_model",
    "text.txt": "no Python",
}
BROKEN_FILES = ["import nothing_there", "config = 5", "config = {", "raise SystemExit(3)", "1 / 0",
                "config = {}\nconfig['engine'] = config", "config = {5: 6}", "", "\0",
                "config = {'training_opt': open}", "raise ValueError('two\\nlines')",
                "def config(): pass", "config = {None: 1}"]  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A config with one thing wrong.

    names: words of which a refusal must hold every one.
    """

    shipped: str
    kind: str
    key: str
    change: str
    text: str
    overrides: list[str] = field(default_factory=list)
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}, {self.shipped}, {self.key}: {self.change[:80]}"


def mutate(rng: random.Random) -> Mutant:
    """A shipped config with one thing wrong, drawn by `rng`."""
    shipped = rng.choice(SHIPPED)
    return rng.choice(MUTATIONS)(rng, shipped)


def _drop(rng: random.Random, shipped: str) -> Mutant:
    values = read_values(PROJECT / shipped)
    path = rng.choice(_paths(values))
    parent = _get(values, path[:-1])
    del parent[path[-1]]
    return _mutant(shipped, "dropped", path, "", values)


def _misspell(rng: random.Random, shipped: str) -> Mutant:
    values = read_values(PROJECT / shipped)
    path = rng.choice([path for path in _paths(values) if not _is_name(path)])
    parent, right = _get(values, path[:-1]), path[-1]
    wrong = misspelt(rng, right)
    renamed = {wrong if key == right else key: value for key, value in parent.items()}
    parent.clear()
    parent.update(renamed)
    names = () if wrong == right else (wrong, f"'{right}'")
    return replace(_mutant(shipped, "misspelt", path, wrong, values), names=names)


def misspelt(rng: random.Random, word: str) -> str:
    """The word as a hurried hand writes it."""
    place = rng.randrange(len(word) - 1)
    left, two, right = word[:place], word[place : place + 2], word[place + 2 :]
    return rng.choice(
        [
            left + two[1] + two[0] + right,
            left + two[1] + right,
            left + two[0] + two + right,
            left + rng.choice("aeiou") + two[1] + right,
            word.capitalize(),
            word.replace("_", ""),
            word.replace("_", "-"),
            f"{word}s",
            f" {word}",
        ]
    )


def _replace(kind: str, pool: Callable[[Any], list[Any]]) -> Callable[..., Mutant]:
    def mutation(rng: random.Random, shipped: str) -> Mutant:
        values = read_values(PROJECT / shipped)
        path = rng.choice(_paths(values))
        parent = _get(values, path[:-1])
        value = rng.choice(pool(parent[path[-1]]))
        parent[path[-1]] = value
        return _mutant(shipped, kind, path, _shown(value), values, strict=True)

    return mutation


def _other_types(value: Any) -> list[Any]:
    pool = [5, 0.25, "words", *OTHERS, *CONTAINERS]
    return [each for each in pool if type(each) is not type(value)]


def _extremes(value: Any) -> list[Any]:
    if isinstance(value, str):
        return TEXTS
    if isinstance(value, list | tuple) and value:
        return [[each] * len(value) for each in NUMBERS] + [list(value) * 1000, [value[0]]]
    return NUMBERS if isinstance(value, int | float) else [*NUMBERS, *TEXTS, *CONTAINERS]


def _swap(rng: random.Random, shipped: str) -> Mutant:
    """Exchange two values, of sections or of keys."""
    values = read_values(PROJECT / shipped)
    paths = [(key,) for key in values] if rng.random() < 0.5 else _paths(values)
    one, other = rng.choice(paths), rng.choice(paths)
    first, second = _get(values, one), _get(values, other)
    nested = one == other[: len(one)] or other == one[: len(other)]
    if not nested:
        _get(values, one[:-1])[one[-1]] = second
        _get(values, other[:-1])[other[-1]] = first
    return _mutant(shipped, "swapped", one, f"with {'.'.join(other)}", values)


def _mix(rng: random.Random, shipped: str) -> Mutant:
    """Take a value from another config, or a method that torch has; most of these will run."""
    values, others = read_values(PROJECT / shipped), read_values(PROJECT / rng.choice(SHIPPED))
    path = rng.choice(_paths(others))
    value = _get(others, path)
    if rng.random() < 0.4:
        library = rng.choice([("optimizer", torch.optim), ("scheduler", torch.optim.lr_scheduler)])
        path = ("training_opt", library[0], "name")
        value = rng.choice([name for name, each in vars(library[1]).items() if isclass(each)])
    place = values
    for key in path[:-1]:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            return _drop(rng, shipped)
    place[path[-1]] = value
    return _mutant(shipped, "mixed", path, _shown(value), values)


def _set_option(rng: random.Random, shipped: str) -> Mutant:
    """Give an option a value of its type, of those that a user might try; many of these run."""
    values = read_values(PROJECT / shipped)
    section = rng.choice([name for name in OPTIONS if name in values])
    hints = get_type_hints(OPTIONS[section])
    name = rng.choice([name for name in hints if name not in LEFT])
    value = _plausible(rng, hints[name])
    values[section][name] = value
    return _mutant(shipped, "option", (section, name), _shown(value), values)


def _plausible(rng: random.Random, hint: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _plausible(rng, rng.choice(arguments))
    if origin is Literal:
        return rng.choice(arguments)
    if origin is list:
        return [_plausible(rng, arguments[0]) for _ in range(rng.randint(1, 3))]
    pools: dict[Any, list[Any]] = {
        int: [0, 1, 2, 3, 5, 8, 16, 33, 100, 1000],
        float: [0, 1e-6, 0.1, 0.5, 1, 2.5, 100, 1e4],
        bool: [True, False],
        str: ["class_0", "class_1", "0", "words"],
    }
    return rng.choice(pools.get(hint, [None]))


def _set_param(rng: random.Random, shipped: str) -> Mutant:
    """Give a parameter of a part a value that it may never have been asked to bear."""
    values = read_values(PROJECT / shipped)
    parts = [(path, list(signature(part).parameters)) for path, part in _parts(values)]
    path, names = rng.choice([part for part in parts if part[1]])
    name = rng.choice(names)
    place = values
    for key in path:
        place = place.setdefault(key, {})
    value = rng.choice([*NUMBERS, *NUMBERS, 2, 3, 1e-3, *TEXTS, *CONTAINERS, *OTHERS])
    place[name] = value
    return _mutant(shipped, "parameter", (*path, name), _shown(value), values, strict=True)


def _parts(values: dict[str, Any]) -> list[tuple[tuple[str, ...], Callable[..., Any]]]:
    """Where the params of a config's parts stand, and the functions that take them."""
    options = values["training_opt"]
    found: list[tuple[tuple[str, ...], Callable[..., Any]]] = []
    for section, key, name in (
        ("networks", "params", "create_model"),
        ("criterions", "loss_params", "create_loss"),
    ):
        for each, part in values.get(section, {}).items():
            found.append(((section, each, key), load_function(part["def_file"], name, each)))
    for section, name in (("data", "create_source"), ("hasher", "create_model")):
        if section in values:
            function = load_function(values[section]["def_file"], name, section)
            found.append(((section, "params"), function))
    for section, library in (("optimizer", torch.optim), ("scheduler", torch.optim.lr_scheduler)):
        if section in options:
            function = getattr(library, options[section]["name"])
            found.append((("training_opt", section, "params"), function))
    found.append((("training_opt", "augmentation"), Augmentation))
    return found


def _break_part(rng: random.Random, shipped: str) -> Mutant:
    """Name a Python file that is not there or not what it should be, or a key it has not."""
    values = read_values(PROJECT / shipped)
    path = rng.choice([path for path in _paths(values) if path[-1] == "def_file"])
    place = rng.choice([*BROKEN_PARTS, "no_such_file.py", ".", "./models",
                        "./models/direct_head.py", "./data/digits.py",
                        "./loss/adsh.py", "./main.py", "x" * 300])  # fmt: skip
    part = _get(values, path[:-1])
    part["def_file"] = place
    if rng.random() < 0.5:
        part.pop("params", None)
        part.pop("loss_params", None)
    return _mutant(shipped, "part", path, place, values)


def _break_place(rng: random.Random, shipped: str) -> Mutant:
    """Name files and folders that cannot be read or made."""
    values = read_values(PROJECT / shipped)
    options: list[tuple[str, ...]] = [("training_opt", "log_dir"), ("training_opt", "data_root")]
    options += [("data", "split_file"), ("data", "protocol")]
    options += [("networks", name, "weights") for name in values.get("networks", {})]
    options += [("alternate", "base")] if "alternate" in values else []
    path = rng.choice(options)
    place = rng.choice(["text.txt", "text.txt/x", ".", "/proc/none", "/dev/null", "/dev/null/x",
                        "no_such.yaml", "no_such.pth", *TEXTS])  # fmt: skip
    _get(values, path[:-1])[path[-1]] = place
    return _mutant(shipped, "place", path, _shown(place), values)


def _override(rng: random.Random, shipped: str) -> Mutant:
    """Say something odd by --opts, also of keys that the file leaves at their defaults."""
    values = read_values(PROJECT / shipped)
    resolved = load_config(str(PROJECT / shipped)).to_dict()
    path = rng.choice([path for path in _paths(resolved) if _get(resolved, path[:1]) is not None])
    key = ".".join(path)
    if rng.random() < 0.2:
        key = rng.choice([misspelt(rng, key), f"{key}.x", f".{key}", f"{key}.", "", "..", key * 50])
    text = rng.choice([*OVERRIDES, *OVERRIDES, *map(_yaml, [*NUMBERS, *CONTAINERS]), *TEXTS])
    mutant = _mutant(shipped, "override", path, f"{key}={text}", values)
    return replace(mutant, overrides=[f"{key}={text}" if rng.random() < 0.95 else key])


def _yaml(value: Any) -> str:
    return {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}.get(_shown(value), _shown(value))


def _break_text(rng: random.Random, shipped: str) -> Mutant:
    """Break the file itself."""
    text = write(read_values(PROJECT / shipped))
    place = rng.randrange(len(text))
    text = rng.choice([text[:place], text[:place] + text[place + 1 :],
                       text[:place] + rng.choice("(){}[]'\"\\\0\n=,: é\ufeff") + text[place:],
                       text + rng.choice(BROKEN_FILES), rng.choice(BROKEN_FILES)])  # fmt: skip
    return Mutant(shipped, "text", "", f"at {place}", text)


MUTATIONS: list[Callable[[random.Random, str], Mutant]] = [
    _drop,
    _misspell,
    _replace("mistyped", _other_types),
    _replace("extreme", _extremes),
    _replace("extreme", _extremes),
    _swap,
    _mix,
    _mix,
    _set_option,
    _set_option,
    _set_param,
    _set_param,
    _break_part,
    _break_place,
    _override,
    _override,
    _break_text,
]


def _mutant(
    shipped: str,
    kind: str,
    path: tuple[str, ...],
    change: str,
    values: dict[str, Any],
    strict: bool = False,
) -> Mutant:
    text = write(values)
    names = (path[-1],) if strict else ()
    return Mutant(shipped, kind, ".".join(path), change, text, names=names)


def write(values: dict[str, Any]) -> str:
    """The text of a config file that states these values."""
    return f"{HEADER}config = {_shown(values)}\n"


def _shown(value: Any) -> str:
    """As Python writes it; numbers of any length too."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {_shown(each)}" for k, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return hex(value) if type(value) is int and abs(value) > 10**40 else repr(value)


def _paths(values: Any, start: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The keys of all nested dicts."""
    found = []
    for key, value in values.items() if isinstance(values, dict) else ():
        found += [(*start, key), *_paths(value, (*start, key))]
    return found


def _get(values: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        values = values[key]
    return values


def _is_name(path: tuple[str, ...]) -> bool:
    """Whether a key is a name that the config gives, so that any other will do."""
    return len(path) == 2 and path[0] in ("networks", "criterions")
