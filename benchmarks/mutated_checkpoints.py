"""Mutated checkpoint files: each is refused by one line that names it, or loads whole and exactly.

What was loaded is compared with what the file holds by a loop over places that are written down in
benchmarks/checkpoint_zoo.py. A crash, a tensor that was not in the file and not missed, one in the
file that was passed over, a number that differs, or code that ran is a failure.
"""

import random
import shutil
import time
import traceback
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.checkpoint_mutations import Mutant, mutate
from benchmarks.checkpoint_zoo import Place
from benchmarks.fault_findings import Finding
from benchmarks.time_limit import TooSlow, limited
from engine.checkpoint import load_checkpoint, load_initial_weights, load_networks
from engine.options import NetworkOptions
from utils.def_file import PROJECT
from utils.errors import UserError

SECONDS = 20  # of one mutant; more is a hang
LONGEST_LINE = 2000  # characters of a refusal


def run(count: int, seed: int, folder: Path) -> Finding:
    """Judge `count` mutants in `folder`; the n-th is that of `random.Random(f"{seed}/{n}")`."""
    started, failures, slowest = time.perf_counter(), [], 0.0
    outcomes: Counter[str] = Counter()
    for number in range(count):
        place = folder / str(number)
        place.mkdir(parents=True)
        canary = place / "canary"
        mutant = mutate(random.Random(f"{seed}/{number}"), place, canary)
        since = time.perf_counter()
        outcome = "code ran" if canary.exists() else judge(mutant)
        slowest = max(slowest, time.perf_counter() - since)
        if canary.exists():
            outcome = "code ran"
        if outcome not in ("loaded", "refused"):
            failures.append(f"{seed}/{number}: {mutant}: {outcome}")
            outcome = "failed"
        outcomes[outcome] += 1
        shutil.rmtree(place)
    figures: dict[str, float | str] = {**outcomes, "slowest_seconds": slowest}
    seconds = time.perf_counter() - started
    return Finding("mutated_checkpoints", count, failures, seconds, figures)


def judge(mutant: Mutant) -> str:
    """'loaded' or 'refused', or in a line what was wrong with how the mutant was borne."""
    model = mutant.specimen.build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        with limited(SECONDS):
            _load(model, mutant)
    except UserError as error:
        line = str(error)
        if "\n" in line or len(line) > LONGEST_LINE or str(mutant.path) not in line:
            return f"refused by other than a line that names the file: {line[:300]!r}"
        return "refused"
    except TooSlow:
        return f"still silent after {SECONDS} s"
    except Exception as error:
        return _place(error)
    if mutant.values is None:
        return "loaded, though nothing in it may be"
    return _compare(mutant, mutant.values, model, before) or "loaded"


def _load(model: nn.Sequential, mutant: Mutant) -> None:
    """Load as --checkpoint does, or as `networks.*.weights` where parts are to stay."""
    fresh = mutant.specimen.fresh
    if fresh is None:
        load_networks(model, load_checkpoint(mutant.path), mutant.path)
        return
    networks = {
        name: NetworkOptions("", weights=str(mutant.path), fresh=parts)
        for name, parts in fresh.items()
    }
    dataset = SimpleNamespace(source=SimpleNamespace(name="another"), digest="")
    load_initial_weights(cast(Any, SimpleNamespace(networks=networks)), model, cast(Any, dataset))


def _compare(
    mutant: Mutant, values: dict[str, Any], model: nn.Sequential, before: dict[str, Tensor]
) -> str:
    """What differs between the loaded networks and the file; empty if nothing."""
    places, differing = mutant.specimen.places, 0
    for name, value in model.state_dict().items():
        if name not in places:
            if not torch.equal(value, before[name]):
                return f"{name} is not in the file and has changed"
            continue
        stored = [_at(values, place) for place in places[name]]
        present = [each for each in stored if isinstance(each, Tensor)]
        if not present:
            return f"{name} is not in the file and was not missed"
        expected = present[0].to(value.dtype)
        if expected.shape != value.shape:
            return f"{name} was {tuple(present[0].shape)} in the file"
        differing += _differing_bits(value, expected)
    if differing > mutant.bits:
        return f"{differing} bits differ from the file's"
    known = {place for each in places.values() for place in each}
    for state in mutant.specimen.states:
        for name in _at(values, state) or {}:
            if (*state, name) not in known and not name.startswith(mutant.specimen.free):
                return f"{name} of the file was passed over"
    return ""


def _differing_bits(one: Tensor, other: Tensor) -> int:
    pairs = zip(one.numpy().tobytes(), other.contiguous().numpy().tobytes(), strict=True)
    return sum((a ^ b).bit_count() for a, b in pairs)


def _at(values: Any, place: Place) -> Any:
    """What stands at a place; None if nothing does."""
    for key in place:
        if not isinstance(values, dict) or key not in values:
            return None
        values = values[key]
    return values


def _place(error: Exception) -> str:
    """The error and the line of the project that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(PROJECT)][-1]
    reason = " ".join(str(error).split())[:200]
    where = f"{Path(own.filename).relative_to(PROJECT)}:{own.lineno}"
    return f"{type(error).__name__}: {reason} ({where})"
