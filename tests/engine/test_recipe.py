"""A recipe's name tells configs apart by what they learn, and by nothing else."""

import pytest

from engine.config import load_config, write_config
from engine.recipe import recipe

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
        "training_opt.code_length=[16, 32]",
        "training_opt.data_root=/elsewhere",
        "training_opt.log_dir=elsewhere",
        "training_opt.accelerate=none",
        "training_opt.num_epochs=30",  # as it is
        "training_opt.mirror_codes=false",  # the default
        "data.params.folder=Cifar100",
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


def test_weights_count_by_the_recipe_of_their_run_planned_or_finished(tmp_path):
    first = load_config(STAGE_1, [f"training_opt.log_dir={tmp_path}/a"])
    longer = load_config(STAGE_1, [f"training_opt.log_dir={tmp_path}/a", LONGER])
    weights = [
        f"networks.{name}.weights={tmp_path}/a/final_model_checkpoint.pth"
        for name in ("feat_model", "hash_head")
    ]
    second = load_config(STAGE_2, weights)
    planned = recipe(second, {first.training_opt.log_dir: first})
    assert planned != recipe(second, {first.training_opt.log_dir: longer})
    assert planned != recipe(second)  # of a run that nothing is known of
    (tmp_path / "a").mkdir()
    write_config(first, tmp_path / "a" / "config.yaml")
    assert recipe(second) == planned
