"""Sums of losses, and the step that spoilt one of them."""

import io
import math

import pytest
import torch

from engine.loss_tally import LossTally

STEPS = [{"a": 1.5, "b": -2.0}, {"a": 0.25, "b": 4.0}, {"a": 3.0, "b": 0.5}]


def _losses(values):
    return {name: torch.tensor(value) for name, value in values.items()}


def _tally(steps):
    tally = LossTally()
    for values in steps:
        tally.add(_losses(values))
    return tally


def test_means_are_those_of_a_loop():
    tally = _tally(STEPS)
    for name in ("a", "b"):
        assert tally.means()[name] == pytest.approx(sum(s[name] for s in STEPS) / 3)
    assert tally.first_bad() is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_the_first_bad_loss_and_its_step_are_told_after_any_number_of_steps(bad, name, step):
    steps = [dict(values) for values in STEPS]
    steps[step - 1][name] = bad
    after = {"a": math.nan, "b": math.nan}  # as all losses of spoilt weights are
    assert _tally([*steps, after, after]).first_bad() == (name, step)


def test_infinities_of_both_signs_do_not_cancel():
    assert _tally([{"a": math.inf}, {"a": -math.inf}, {"a": 1.0}]).first_bad() == ("a", 1)


def test_skipped_steps_count_in_no_mean():
    tally = LossTally()
    for values in ({}, STEPS[0], {}, STEPS[1]):
        tally.add(_losses(values))
    assert (tally.steps, tally.skipped, tally.first_bad()) == (4, 2, None)
    assert tally.means()["a"] == pytest.approx((1.5 + 0.25) / 2)


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_restored_tally_goes_on_to_the_same_bits(before):
    stored = io.BytesIO()
    torch.save(_tally(STEPS[:before]).state(), stored)
    stored.seek(0)
    state = torch.load(stored, weights_only=True)
    tally = LossTally.restored(state, torch.device("cpu"))
    for values in STEPS[before:]:
        tally.add(_losses(values))
    assert tally.means() == _tally(STEPS).means()
    assert tally.steps == 3


def test_more_steps_than_there_was_room_for_are_all_kept(monkeypatch):
    monkeypatch.setattr("engine.loss_tally.ROOM", 2)
    tally = _tally([{"a": float(step), "b": 1.0} for step in range(11)])
    assert tally.values[:, 0].tolist() == list(range(11))
    assert tally.means() == {"a": 5.0, "b": 1.0}
    assert _tally([*STEPS, {"a": 1.0, "b": math.nan}]).first_bad() == ("b", 4)


def test_a_loss_that_is_added_to_in_place_later_is_counted_as_it_was():
    """A captured step writes each time into the same memory."""
    tally, loss = LossTally(), torch.tensor(1.0)
    tally.add({"a": loss})
    loss += 10
    assert tally.means() == {"a": 1.0}
