"""Mutated configs: each is refused by one line that names the key, or it runs.

A mutant is a shipped config with one thing wrong. It is loaded, checked and, if nothing is said
against it, trained and tested small, on made-up images where its own are not at hand. Anything but
a UserError is a failure, and so is a line that does not name the key, or half a minute's silence.
"""

import random
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import fields, replace
from pathlib import Path

from benchmarks.config_mutations import BROKEN_PARTS, Mutant, mutate
from benchmarks.fault_findings import Finding
from benchmarks.time_limit import TooSlow, limited
from engine.build import check_config_parts
from engine.config import RunConfig, load_config
from engine.dataset import open_source
from engine.experiment import train_and_test
from engine.options import (
    AlternateOptions,
    CriterionOptions,
    DataOptions,
    HasherOptions,
    MemoryOptions,
    NetworkOptions,
    TrainingOptions,
)
from engine.smoke import smoke_configs
from utils.def_file import PROJECT
from utils.errors import UserError

SECONDS = 30  # of one mutant; more is a hang
TINY_IMAGE = 32  # pixels a side
LONGEST_LINE = 2000  # characters of a refusal
SECTIONS = (TrainingOptions, DataOptions, NetworkOptions, CriterionOptions, MemoryOptions,
            AlternateOptions, HasherOptions)  # fmt: skip
WORDS = ["config", "--opts", "data", "network", "criterions", "memory", "engine", "hasher",
         "alternate", "training_opt"]  # fmt: skip
OPTIONS = {each.name: [o.name for o in fields(s)] for s in SECTIONS for each in fields(s)}
WORDS += [name for name in OPTIONS if len(name) > 3]
# Options that --smoke sets by itself and that are not to be put back, of the sections that it sets.
OF_SMOKE = {
    "training_opt": ["num_epochs", "image_size"],
    "data": ["def_file", "params"],
    "alternate": ["iterations", "epochs"],
}


def run(count: int, seed: int, folder: Path) -> Finding:
    """Judge `count` mutants in `folder`; the n-th is that of `random.Random(f"{seed}/{n}")`."""
    started, failures = time.perf_counter(), []
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    with _without_pictures():
        for number in range(count):
            mutant = mutate(random.Random(f"{seed}/{number}"))
            since = time.perf_counter()
            outcome = judge(mutant, folder / str(number))
            slowest = max(slowest, time.perf_counter() - since)
            shutil.rmtree(folder / str(number), ignore_errors=True)
            if outcome not in ("ran", "refused"):
                failures.append(f"{seed}/{number}: {mutant}: {outcome}")
                outcome = "failed"
            outcomes[outcome] += 1
    figures: dict[str, float | str] = {**outcomes, "slowest_seconds": slowest}
    seconds = time.perf_counter() - started
    return Finding("mutated_configs", count, failures, seconds, figures)


def judge(mutant: Mutant, folder: Path, train: bool = True) -> str:
    """'ran' or 'refused', or in a line what was wrong with how the mutant was borne.

    Args:
        folder: made for it; the mutant runs in there.
        train: also train and test what is not refused.
    """
    path = folder / Path(mutant.shipped).name
    path.parent.mkdir(parents=True)
    path.write_text(mutant.text, encoding="utf-8", errors="surrogatepass")
    for name, text in BROKEN_PARTS.items():
        (folder / name).write_text(text)
    names, typed = mutant.names, [each.partition("=")[0] for each in mutant.overrides]
    with chdir(folder), limited(SECONDS):
        try:
            config = load_config(path.name, mutant.overrides)
            check_config_parts(config)
            names = ()  # from here on it may be another key that does not go with the mutated one
            for small in tiny_configs(config, mutant.key, folder / "runs") if train else []:
                train_and_test(small)
        except UserError as error:
            return _judge_line(str(error), names, [*WORDS, *filter(None, typed)])
        except TooSlow:
            return f"still silent after {SECONDS} s"
        except BaseException as error:
            return _place(error)
    return "ran"


def _judge_line(line: str, names: tuple[str, ...], words: list[str]) -> str:
    """'refused' if the line is one and holds all of the names and any of the words."""
    if "\n" in line or len(line) > LONGEST_LINE:
        return (
            f"refused by {len(line.splitlines())} lines of {len(line)} characters: {line[:200]!r}"
        )
    missing = [name for name in names if name not in line]
    if missing or not any(word in line for word in words):
        return f"refused without a word of {', '.join(missing) or 'any key'}: {line}"
    return "refused"


def _place(error: BaseException) -> str:
    """The error and the line of the project that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(PROJECT)][-1]
    reason = " ".join(str(error).split())[:200]
    where = f"{Path(own.filename).relative_to(PROJECT)}:{own.lineno}"
    return f"{type(error).__name__}: {reason} ({where})"


@contextmanager
def _without_pictures() -> Iterator[None]:
    """Leave out the report's pictures, which take a second a run and which no key changes."""
    import engine.evaluate

    before = engine.evaluate.write_results
    engine.evaluate.write_results = lambda run, scored: None
    try:
        yield
    finally:
        engine.evaluate.write_results = before


def tiny_configs(config: RunConfig, key: str, folder: Path) -> list[RunConfig]:
    """What is trained of a mutant in a second: --smoke's configs, but for the mutated value."""
    if key.startswith(("data.def_file", "data.params")):
        open_source(config)
    section, _, rest = key.partition(".")
    name = rest.partition(".")[0]
    *bases, last = [_quick(each, name) for each in smoke_configs(config, folder)]
    if section in OF_SMOKE and name and name not in OF_SMOKE[section] and getattr(last, section):
        value = getattr(getattr(config, section), name)
        last = replace(last, **{section: replace(getattr(last, section), **{name: value})})
        if key == "data.protocol":  # which says itself how images are drawn
            last.data.queries_per_class = None
    if section == "networks" and name in last.networks:
        network = config.networks[name]
        if network.weights == "default" or str(network.weights).startswith("./logs"):
            network = replace(network, weights=None)  # none of its own are at hand
        last = replace(last, networks={**last.networks, name: network})
    return [*bases, last]


def _quick(config: RunConfig, mutated: str) -> RunConfig:
    """The config with small images and a small network, but for the network that was mutated."""
    options = config.training_opt
    networks = {
        name: replace(each, def_file="./models/small_cnn.py", params={})
        if each.def_file == "./models/backbone.py" and name != mutated
        else each
        for name, each in config.networks.items()
    }
    image_size = min(TINY_IMAGE, options.image_size)
    return replace(config, training_opt=replace(options, image_size=image_size), networks=networks)
