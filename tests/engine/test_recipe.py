"""A recipe's name tells configs apart by what they learn, and by nothing else."""

from pathlib import Path

import pytest
from small_config import make_config

from engine.checkpoint import BEST
from engine.config import load_config
from engine.experiment import test_only as run_test_only
from engine.experiment import train_and_test
from engine.recipe import recipe

HEADS = ("feat_model", "hash_head")
STAGE_1 = "config/Cifar100_LT/stage_1.py"
STAGE_2 = "config/Cifar100_LT/stage_2_meta_embedding.py"
LONGER = "training_opt.num_epochs=31"


def _recipe(*options, config=STAGE_1):
    return recipe(load_config(config, list(options)))


@pytest.mark.parametrize(
    "option",
    [
        "training_opt.seed=7",
        "training_opt.imbalance_factor=50",
        "training_opt.code_length=16",
        "training_opt.data_root=/elsewhere",
        "training_opt.log_dir=elsewhere",
        "training_opt.accelerate=none",
        "training_opt.num_epochs=30",  # as it is
        "training_opt.mirror_codes=false",  # the default
        "data.on_leak=warn",
    ],
)
def test_seed_cell_place_and_speed_are_no_part_of_it(option):
    assert _recipe(option) == _recipe()


@pytest.mark.parametrize(
    "option",
    [
        LONGER,
        "training_opt.mirror_codes=true",
        "networks.feat_model.fix_statistics=false",
        "networks.feat_model.weights=null",
        "networks.hash_head.def_file=./models/flat_head.py",
        "criterions.classification.weight=2",
        "training_opt.optimizer.params.lr=2e-3",
        "data.params.folder=Cifar10",
        "networks.hash_head.params.selector=null",
    ],
)
def test_what_is_learned_and_how_it_is_coded_is(option):
    assert _recipe(option) != _recipe()


def test_the_order_of_networks_is_part_of_it():
    config, other = load_config(STAGE_1), load_config(STAGE_1)
    other.networks = dict(reversed(other.networks.items()))
    assert recipe(config) != recipe(other)


def test_a_whole_number_is_the_float_it_equals():
    assert _recipe("training_opt.warmup_epochs=3") == _recipe("training_opt.warmup_epochs=3.0")


def test_weights_count_by_the_recipe_of_their_run_and_else_by_their_files_name():
    places = ("a/final.pth", "b/final.pth", "b/other.pth")
    one, two, other = (
        load_config(STAGE_2, [f"networks.{name}.weights={place}" for name in HEADS])
        for place in places
    )
    assert recipe(one) == recipe(two) != recipe(other)
    assert recipe(one, {Path("a/final.pth"): "x"}) != recipe(two, {Path("b/final.pth"): "y"})
    assert recipe(one, {Path("a/final.pth"): "x"}) == recipe(two, {Path("./b/final.pth"): "x"})


def test_a_base_is_a_start():
    config = load_config("config/Cifar10_Incremental/dihn.py")
    assert recipe(config) != recipe(config, {Path(config.alternate.base): "x"})


def test_params_named_as_what_is_apart_are_part_of_it():
    for name in ("seed=3", "device=3", "base=3", "weights=[1]", "code_length=3"):
        assert _recipe(f"networks.hash_head.params.{name}") != _recipe()


def test_lengths_that_are_learned_together_are_part_of_it():
    both, others = (f"training_opt.code_length=[{first}, 32]" for first in (16, 24))
    assert len({_recipe(), _recipe(both), _recipe(others)}) == 3


def test_a_run_its_checkpoint_and_what_builds_on_it_have_recipes(tmp_path):
    config = make_config(tmp_path / "one")
    row = train_and_test(config)
    assert row["recipe"] == recipe(config) != ""
    assert run_test_only(config)["recipe"] == row["recipe"]
    head = {"def_file": "./models/direct_head.py", "weights": str(tmp_path / "one" / BEST)}
    second = make_config(tmp_path / "two", networks={"hash_head": head})
    found = train_and_test(second)["recipe"]
    assert found == recipe(second, {tmp_path / "one" / BEST: row["recipe"]}) != recipe(second)
    (tmp_path / "one" / BEST).unlink()
    assert run_test_only(second)["recipe"] == found


def test_other_options_in_a_test_leave_no_recipe_that_was_not_trained(tmp_path):
    train_and_test(make_config(tmp_path / "one"))
    assert run_test_only(make_config(tmp_path / "one", num_epochs=7))["recipe"] == ""
    assert run_test_only(make_config(tmp_path / "one", mirror_codes=True))["recipe"] == ""
    assert run_test_only(make_config(tmp_path / "one", method="other"))["recipe"] == ""


def test_a_run_that_starts_from_its_own_folder_has_the_recipe_of_what_was_there(tmp_path):
    first = train_and_test(make_config(tmp_path))["recipe"]
    networks = {
        "hash_head": {"def_file": "./models/direct_head.py", "weights": str(tmp_path / BEST)}
    }
    config = make_config(tmp_path, networks=networks)
    expected = recipe(config, {tmp_path / BEST: first})
    assert train_and_test(config)["recipe"] == expected
    assert train_and_test(config, resume=True)["recipe"] == expected
