import argparse

import pytest

from engine.coding_options import OPTIONS, add_coding_options, coding_options
from engine.options import TrainingOptions


def parsed(names, *given):
    parser = argparse.ArgumentParser()
    add_coding_options(parser, *names)
    return coding_options(parser.parse_args(given), *names)


def test_each_option_stands_for_a_training_option():
    assert {option for option, _ in OPTIONS.values()} <= set(TrainingOptions.__dataclass_fields__)


def test_what_is_not_given_is_left_to_the_model():
    assert parsed(OPTIONS) == {}
    assert parsed(OPTIONS, "--precision=bf16", "--workers=0") == {
        "precision": "bf16", "num_workers": 0
    }  # fmt: skip


def test_a_command_has_the_named_options_only(capsys):
    assert parsed(["batch_size"], "--batch_size=4") == {"evaluation_batch_size": 4}
    with pytest.raises(SystemExit):
        parsed(["batch_size"], "--precision=bf16")
    assert "--precision" in capsys.readouterr().err
