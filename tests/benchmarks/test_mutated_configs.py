"""Whatever is wrong with a config, a line names it; what the benchmark calls a failure is one."""

import random
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import mutated_configs
from benchmarks.config_mutations import MUTATIONS, SHIPPED, Mutant, misspelt, mutate, write
from benchmarks.mutated_configs import OPTIONS, judge, run
from engine.config import read_values
from utils.errors import UserError, unknown_key

FINE = Mutant(SHIPPED[0], "none", "", "", "config = {}")


def judged(mutant, train=False):
    with tempfile.TemporaryDirectory() as folder:
        return judge(mutant, Path(folder) / "mutant", train)


@settings(max_examples=60, database=None)
@given(st.randoms(use_true_random=False))
def test_a_mutant_is_refused_in_a_line_or_passes_the_checks(rng):
    mutant = mutate(rng)
    assert judged(mutant) in ("ran", "refused"), mutant


def test_mutants_are_refused_or_run(tmp_path):
    found = run(25, 2, tmp_path)
    assert found.failures == []
    assert found.figures["ran"] >= 1
    assert found.figures["refused"] >= 5
    assert found.tried == 25
    assert list(tmp_path.iterdir()) == []


def test_a_seed_names_a_mutant():
    one, same, other = (mutate(random.Random(seed)) for seed in ("0/1", "0/1", "0/2"))
    assert str(one) == str(same)
    assert one.text == same.text
    assert str(one) != str(other)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_every_mutation_changes_most_configs(mutation):
    changed = 0
    for number in range(20):
        rng = random.Random(number)
        mutant = mutation(rng, rng.choice(SHIPPED))
        changed += mutant.text != write(read_values(Path(mutant.shipped))) or bool(mutant.overrides)
    assert changed >= 15


@settings(max_examples=150, database=None)
@given(st.sampled_from(sorted(OPTIONS)), st.randoms(use_true_random=False))
def test_a_misspelt_option_is_answered_with_the_right_one(option, rng):
    options = OPTIONS[option]
    wrong = misspelt(rng, option)
    if wrong not in options:
        assert f"did you mean '{option}'?" in str(unknown_key(wrong, wrong, options))


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (KeyError("x"), "KeyError: 'x' (tests/benchmarks/test_mutated_configs.py:"),
        (RecursionError("deep"), "RecursionError: deep"),
        (SystemExit(3), "SystemExit: 3"),
        (UserError("data\nin two lines"), "refused by 2 lines"),
        (UserError("data " * 1000), "refused by 1 lines of 5000 characters"),
        (UserError("something is wrong"), "refused without a word of any key"),
        (UserError("the data is wrong"), "refused"),
    ],
)
def test_what_is_no_line_that_names_a_key_is_a_failure(error, outcome, monkeypatch):
    def fail(path, overrides):
        raise error

    monkeypatch.setattr(mutated_configs, "load_config", fail)
    assert judged(FINE).startswith(outcome)


def test_a_refusal_must_name_the_key_that_was_mutated(monkeypatch):
    mutant = Mutant(SHIPPED[0], "extreme", "data.mu", "", "config = {}", names=("mu",))
    assert judged(mutant).startswith("refused without a word of mu: ")


def test_silence_is_a_failure(monkeypatch):
    monkeypatch.setattr(mutated_configs, "SECONDS", 0.1)
    monkeypatch.setattr(mutated_configs, "load_config", lambda path, overrides: time.sleep(60))
    started = time.monotonic()
    assert judged(FINE) == "still silent after 0.1 s"
    assert time.monotonic() - started < 10
