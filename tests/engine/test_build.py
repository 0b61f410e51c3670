"""Config entries become objects with the sizes, rates and schedules that they state."""

import math

import pytest
import torch
from small_config import make_config

from engine.build import (
    build_criterions,
    build_networks,
    build_optimizer,
    build_scheduler,
    check_config_parts,
)
from utils.errors import UserError

COUNTS = torch.tensor([8, 4, 2, 1, 1])


def test_heads_are_told_the_sizes_around_them(tmp_path):
    model = build_networks(make_config(tmp_path, "meta"), num_classes=5)
    head = model.hash_head
    assert head.feature_layer.in_features == model.feat_model.out_features
    assert head.hash_layer.out_features == 8
    assert head.memory.shape == (3 * 5, 16)


def test_a_memory_without_a_head_for_it_is_an_error(tmp_path):
    config = make_config(tmp_path, memory={"centroids": True})
    with pytest.raises(UserError, match="has no memory"):
        build_networks(config, 5)


def test_a_head_after_a_network_of_unknown_width_asks_for_it(tmp_path):
    config = make_config(tmp_path, networks={"feat_model": {"def_file": "./models/pixels.py"}})
    with pytest.raises(UserError, match=r"networks\.hash_head lacks 'in_features'"):
        build_networks(config, 5)


def test_default_weights_need_a_network_that_has_some(tmp_path):
    config = make_config(tmp_path)
    config.networks["feat_model"].weights = "default"
    with pytest.raises(UserError, match="weights is 'default'"):
        build_networks(config, 5)


def test_each_network_keeps_its_own_rate_and_fixed_ones_are_left_out(tmp_path):
    config = make_config(tmp_path, optimizer={"name": "SGD", "params": {"lr": 0.1}})
    config.networks["hash_head"].optim_params = {"lr": 0.5, "weight_decay": 0.2}
    config.networks["feat_model"].fix = True
    model = build_networks(config, 5)
    optimizer = build_optimizer(config, model, build_criterions(config, 5, COUNTS, _cpu()))
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert list(groups) == ["hash_head"]
    assert (groups["hash_head"]["lr"], groups["hash_head"]["weight_decay"]) == (0.5, 0.2)
    assert not any(p.requires_grad for p in model.feat_model.parameters())


def test_an_optimizer_has_all_parameters_the_largest_first(tmp_path):
    config = make_config(tmp_path)
    model = build_networks(config, 5)
    optimizer = build_optimizer(config, model, build_criterions(config, 5, COUNTS, _cpu()))
    for group in optimizer.param_groups:
        sizes = [parameter.numel() for parameter in group["params"]]
        assert sizes == sorted(sizes, reverse=True)
        expected = {id(each) for each in model.get_submodule(group["name"]).parameters()}
        assert {id(each) for each in group["params"]} == expected


def test_nothing_left_to_train_is_an_error(tmp_path):
    config = make_config(tmp_path)
    for network in config.networks.values():
        network.fix = True
    model = build_networks(config, 5)
    with pytest.raises(UserError, match="nothing to train"):
        build_optimizer(config, model, build_criterions(config, 5, COUNTS, _cpu()))


def test_warm_up_then_cosine_follow_their_formulas():
    options = _options(num_epochs=10, warmup_epochs=2)
    rates = _rates(options, steps_per_epoch=5)
    for step in range(10):
        assert rates[step] == pytest.approx((1 + step * 10 / 10) / 11)
    for step in range(10, 50):
        expected = 0.5 * (1 + math.cos(math.pi * (step - 10) / 40))
        assert rates[step] == pytest.approx(expected, abs=1e-6)


def test_scheduler_times_are_in_epochs():
    scheduler = {"name": "MultiStepLR", "params": {"milestones": [1, 3], "gamma": 0.1}}
    rates = _rates(_options(num_epochs=4, scheduler=scheduler), steps_per_epoch=3)
    assert rates == pytest.approx([1] * 3 + [0.1] * 6 + [0.01] * 3)


def test_without_a_scheduler_the_rate_stays():
    assert _rates(_options(num_epochs=2, scheduler=None), steps_per_epoch=2) == [1] * 4


def _rates(options, steps_per_epoch):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build_scheduler(options, optimizer, steps_per_epoch)
    rates = []
    for _ in range(options.num_epochs * steps_per_epoch):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def _options(**changes):
    scheduler = {"name": "CosineAnnealingLR", "params": {}}
    return make_config("unused", **{"scheduler": scheduler, **changes}).training_opt


def _cpu():
    return torch.device("cpu")


def checked(tmp_path, **changes):
    """The config, through the check that touches no data."""
    config = make_config(tmp_path, **changes)
    check_config_parts(config)
    return config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": {"name": "SGD", "params": {"lr": -1.0}}}, ["training_opt.optimizer", "-1"]),
        ({"optimizer": {"name": "SGD", "params": {"lr": 1e38}}}, ["lead to infinity", "1e+38"]),
        (
            {"optimizer": {"name": "SGD", "params": {"lr": 1e-3, "weight_decay": 2147483648}}},
            ["training_opt.optimizer", "2147483648", "infinity"],
        ),
        ({"optimizer": {"name": "Adam", "params": {"betas": [0.9]}}}, ["training_opt.optimizer"]),
        ({"optimizer": {"name": "LBFGS", "params": {}}}, ["training_opt.optimizer", "closure"]),
        ({"optimizer": {"name": "Tensor"}}, ["optimizer.name", "did you mean"]),
        ({"optimizer": {"name": "Optimizer"}}, ["optimizer.name", "did you mean"]),
        ({"scheduler": {"name": "partial"}}, ["scheduler.name", "did you mean"]),
        (
            {"scheduler": {"name": "CosineAnnealingLR", "params": {"eta_min": 1e300}}},
            ["training_opt.scheduler", "eta_min"],
        ),
        (
            {"scheduler": {"name": "CosineAnnealingLR", "params": {"eta_min": {}}}},
            ["training_opt.scheduler", "eta_min"],
        ),
        (
            {"scheduler": {"name": "CosineAnnealingLR", "params": {"T_max": 0}}},
            ["training_opt.scheduler", "ZeroDivisionError"],
        ),
        (
            {
                "scheduler": {"name": "CosineAnnealingLR", "params": {"eta_min": "x"}},
                "warmup_epochs": 50,
            },
            ["training_opt.scheduler"],
        ),
        ({"networks": {"feat_model": {"def_file": "./models/small_cnn.py",
            "optim_params": {"lr": [None]}}}}, ["networks.feat_model.optim_params"]),
        ({"networks": {"feat_model": {"def_file": "./models/small_cnn.py",
            "optim_params": {"lr": -1}}}}, ["networks.feat_model.optim_params"]),
        ({"networks": {"modules": {"def_file": "./models/small_cnn.py"}}}, ["networks.modules"]),
    ],
)  # fmt: skip
def test_what_no_step_survives_is_refused_before_any_data_is_touched(tmp_path, changes, words):
    with pytest.raises(UserError) as error:
        checked(tmp_path, **changes)
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop", "NAdam", "Adagrad", "Rprop", "ASGD"])
@pytest.mark.parametrize(
    "scheduler",
    [
        None,
        {"name": "CosineAnnealingLR", "params": {"eta_min": 1e-7}},
        {"name": "StepLR", "params": {"step_size": 3}},
        {"name": "MultiStepLR", "params": {"milestones": [1, 2]}},
        {"name": "CosineAnnealingWarmRestarts", "params": {"T_0": 1}},
        {"name": "LinearLR", "params": {}},
    ],
)
def test_torchs_common_optimizers_and_schedulers_pass(tmp_path, name, scheduler):
    before = torch.random.get_rng_state()
    params = {"lr": 0.1}
    checked(tmp_path, optimizer={"name": name, "params": params}, scheduler=scheduler)
    assert torch.equal(torch.random.get_rng_state(), before)


PARTS = """
from torch import nn
def create_model(width: int = 3, sizes: "tuple[float, float]" = (1, 2), any=None): return WHAT
def create_loss(): return WHAT
"""


@pytest.mark.parametrize("section", ["networks", "criterions"])
@pytest.mark.parametrize("made", ["None", "5", "'two\\nlines'"])
def test_a_part_that_makes_no_module_is_named(tmp_path, section, made):
    path = tmp_path / "part.py"
    path.write_text(PARTS.replace("WHAT", repr(eval(made))))
    config = make_config(tmp_path, **{section: {"own": {"def_file": str(path)}}})
    with pytest.raises(UserError, match=rf"^{section}\.own: .*part\.py makes ") as error:
        build_networks(config, 5)
        build_criterions(config, 5, COUNTS, _cpu())
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_a_network_of_no_width_is_named(tmp_path):
    networks = {"feat_model": {"def_file": "./models/small_cnn.py", "params": {"width": 0}}}
    with pytest.raises(UserError, match=r"^networks\.feat_model: .* without elements, layers\.0"):
        build_networks(make_config(tmp_path, networks=networks), 5)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"width": 0.5}, "width is 0.5, expected a whole number"),
        ({"width": True}, "width is True, expected a whole number"),
        ({"sizes": [1, "x"]}, "sizes is [1, 'x'], expected a list of a number"),
        ({"sizes": [1, 2.5], "any": "thing"}, None),
    ],
)
def test_params_are_held_against_annotations(tmp_path, params, expected):
    path = tmp_path / "part.py"
    path.write_text(PARTS.replace("WHAT", "nn.Identity()"))
    networks = {"feat_model": {"def_file": str(path), "params": params}}
    if expected is None:
        checked(tmp_path, networks=networks)
        return
    with pytest.raises(UserError) as error:
        checked(tmp_path, networks=networks)
    assert f"networks.feat_model.params.{expected}" in str(error.value)


def test_annotations_that_name_nothing_are_passed_over(tmp_path):
    path = tmp_path / "part.py"
    path.write_text("def create_model(width: 'Width' = 1): ...\n")
    checked(tmp_path, networks={"feat_model": {"def_file": str(path), "params": {"width": "x"}}})
