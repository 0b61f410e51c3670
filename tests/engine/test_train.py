"""Training does what it says: the same seed repeats, a resumed run continues, stages chain."""

import json

import numpy as np
import pytest
import torch
from small_config import make_config

from engine.build import Criterion
from engine.checkpoint import BEST, LAST
from engine.config import check_config
from engine.experiment import test_only as run_test_only
from engine.experiment import train_and_test
from engine.memory import refresh_memory
from engine.model import collect_outputs
from engine.objective import Objective
from engine.run import open_run
from engine.train import build_training, check_first_batch, step, train_batches, train_epoch
from models.memory import build_memory, whitening
from utils.errors import UserError

STEPS = 4  # an epoch of the small config


def _weights(folder, name=LAST, key="networks"):
    networks = torch.load(folder / name, weights_only=True)[key]
    return {f"{n}.{k}": v for n, net in networks.items() for k, v in net.items()}


def _assert_equal_weights(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("head", ["direct", "meta"])
def test_the_same_seed_gives_the_same_weights_and_figures(tmp_path, head):
    figures = [train_and_test(make_config(tmp_path / name, head)) for name in ("a", "b")]
    assert figures[0]["map"] == figures[1]["map"]
    _assert_equal_weights(_weights(tmp_path / "a"), _weights(tmp_path / "b"))


def test_another_seed_gives_another_split_and_other_weights(tmp_path):
    one = train_and_test(make_config(tmp_path / "a"))
    other = train_and_test(make_config(tmp_path / "b", seed=1))
    assert one["split_digest"] != other["split_digest"]


@pytest.mark.parametrize("head", ["direct", "meta"])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, head, monkeypatch):
    changes = {
        "num_epochs": 4,
        "scheduler": {"name": "CosineAnnealingLR", "params": {}},
        "warmup_epochs": 1,
    }
    whole = make_config(tmp_path / "whole", head, **changes)
    train_and_test(whole)

    broken = make_config(tmp_path / "broken", head, **changes)

    def stop_in_epoch_3(run, training, epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        return train_epoch(run, training, epoch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("engine.train.train_epoch", stop_in_epoch_3)
        train_and_test(broken)
    train_and_test(broken, resume=True)
    _assert_equal_weights(_weights(tmp_path / "whole"), _weights(tmp_path / "broken"))


def test_resume_without_a_checkpoint_says_so_and_writes_nothing(tmp_path):
    with pytest.raises(UserError, match="train it first"):
        train_and_test(make_config(tmp_path / "run"), resume=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_epochs": 3}, r"training_opt\.num_epochs \(was 2, is 3\)"),
        ({"optimizer": {"name": "SGD", "params": {"lr": 1.0}}}, r"training_opt\.optimizer\.name"),
        ({"augmentation": {"flip": False}}, r"training_opt\.augmentation"),
    ],
)
def test_resume_with_other_options_is_refused_and_changes_nothing(tmp_path, change, words):
    train_and_test(make_config(tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.*")}
    with pytest.raises(UserError, match=words):
        train_and_test(make_config(tmp_path, **change), resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.*")} == before


def test_resuming_a_finished_run_keeps_its_speed_and_needs_no_stage_1(tmp_path):
    train_and_test(make_config(tmp_path / "one"))
    weights = str(tmp_path / "one" / BEST)
    config = make_config(tmp_path / "two")
    config.networks["hash_head"].weights = weights
    first = train_and_test(config)
    (tmp_path / "one" / BEST).unlink()
    again = train_and_test(config, resume=True)
    assert again["map"] == first["map"]
    assert again["images_per_second"] == first["images_per_second"] > 0


def test_figures_name_the_checkpoint_that_was_tested(tmp_path):
    metrics = train_and_test(make_config(tmp_path))
    best = torch.load(tmp_path / BEST, weights_only=True)
    expected = {"epoch": best["best_epoch"], "validation_map": best["best_map"]}
    assert metrics["checkpoint"] == {"path": str(tmp_path / BEST), **expected}


def test_single_label_losses_refuse_multi_label_data_before_anything_is_written(tmp_path):
    params = {"num_classes": 5, "images_per_class": 16, "multi_label": True}
    config = make_config(tmp_path / "run", imbalance_factor=None, data={"params": params})
    with pytest.raises(UserError, match="losses suit the labels"):
        train_and_test(config)
    assert not (tmp_path / "run").exists()


def test_networks_in_the_wrong_order_are_a_user_error(tmp_path):
    config = make_config(tmp_path / "run", networks={"a": {"def_file": "./models/pixels.py"}})
    with pytest.raises(UserError, match="do not fit together"):
        train_and_test(config)


def test_training_learns_the_made_up_classes(tmp_path):
    optimizer = {"name": "AdamW", "params": {"lr": 1e-2}}
    options = {"num_epochs": 30, "imbalance_factor": 1, "optimizer": optimizer}
    metrics = train_and_test(make_config(tmp_path, **options))
    assert metrics["map"] > 0.9
    assert metrics["accuracy"] > 0.9


def test_stage_2_starts_from_stage_1_and_adds_a_memory(tmp_path):
    train_and_test(make_config(tmp_path / "one"))
    weights = str(tmp_path / "one" / BEST)
    config = make_config(
        tmp_path / "two",
        "meta",
        networks={
            "feat_model": {
                "def_file": "./models/small_cnn.py",
                "params": {"width": 4},
                "weights": weights,
            },
            "hash_head": {
                "def_file": "./models/meta_embedding_head.py",
                "weights": weights,
                "fresh": ["hallucinator", "selector"],
            },
        },
    )
    run = open_run(config)
    first = _weights(tmp_path / "one", BEST, "state_dict_best")
    second = run.model.state_dict()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert train_and_test(config)["method"] == "meta"


def _untrained(folder, weights, options=None, **changes):
    """Stage 2 without an epoch, of attention by cosine, from the weights of a stage 1."""
    params = {"attention": "cosine", "selector": 1.0, **(options or {})}
    head = {"def_file": "./models/meta_embedding_head.py", "params": params}
    networks = {
        "feat_model": {"def_file": "./models/small_cnn.py", "params": {"width": 4}},
        "hash_head": head,
    }
    networks = {name: {**each, "weights": str(weights)} for name, each in networks.items()}
    changes = {"num_epochs": 0, "memory": {"dpp_samples": 0}, "networks": networks, **changes}
    return make_config(folder, "meta", **changes)


def test_without_an_epoch_weights_stay_and_a_memory_is_beside_them(tmp_path):
    train_and_test(make_config(tmp_path / "one"))
    config = _untrained(tmp_path / "two", tmp_path / "one" / BEST)
    figures = train_and_test(config)
    kept = _weights(tmp_path / "one", BEST, "state_dict_best")
    found = _weights(tmp_path / "two", BEST, "state_dict_best")
    _assert_equal_weights(kept, {name: found[name] for name in kept})
    run = open_run(config)
    refresh_memory(run)
    for name in ("memory", "keys"):
        assert found[f"hash_head.{name}"].any()
        assert torch.equal(found[f"hash_head.{name}"], run.model.state_dict()[f"hash_head.{name}"])
    assert figures["checkpoint"]["epoch"] == 0
    assert run_test_only(config)["map"] == figures["map"]
    assert train_and_test(config, resume=True)["map"] == figures["map"]


def test_a_memory_with_other_parts_is_filled_beside_the_weights_of_one_that_has_its_own(tmp_path):
    train_and_test(make_config(tmp_path / "one"))
    options = {"adjustment": 0.5, "shrinkage": 2.0}
    train_and_test(_untrained(tmp_path / "two", tmp_path / "one" / BEST, options))
    plain = train_and_test(_untrained(tmp_path / "three", tmp_path / "one" / BEST))
    found = train_and_test(_untrained(tmp_path / "four", tmp_path / "two" / BEST))
    assert found["map"] == plain["map"]


@pytest.mark.parametrize("samples", [0, 2])
def test_an_adjusted_memory_knows_the_training_images_of_each_row(tmp_path, samples):
    train_and_test(make_config(tmp_path / "one"))
    memory = {"dpp_samples": samples}
    weights = tmp_path / "one" / BEST
    run = open_run(_untrained(tmp_path / "two", weights, {"adjustment": 0.5}, memory=memory))
    refresh_memory(run)
    counts = run.model.state_dict()["hash_head.counts"].tolist()
    assert counts == [n for n in run.dataset.split.class_counts for _ in range(1 + samples)]


def test_a_whitened_memory_is_of_the_training_images_inputs(tmp_path):
    train_and_test(make_config(tmp_path / "one"))
    options = {"power": 0.5, "shrinkage": 2.0}
    run = open_run(_untrained(tmp_path / "two", tmp_path / "one" / BEST, options))
    refresh_memory(run)
    images, labels = [], []
    for batch, each in run.dataset.batches([run.dataset.split.train], run.augmentation):
        images.append(run.model.eval()[0](batch))
        labels.append(each)
    values, classes = torch.cat(images).detach(), torch.cat(labels)
    values = values.sign() * values.abs().sqrt()
    found = run.model.state_dict()["hash_head.whitening"]
    expected = whitening(values, classes, run.dataset.num_classes, 2.0)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("change", [{"weights": None}, {"memory": {"centroids": False}}])
def test_no_epoch_without_weights_or_memory_is_one_line(tmp_path, change):
    config = _untrained(tmp_path, tmp_path / BEST).to_dict()
    if "weights" in change:
        config["networks"]["hash_head"] |= change
    else:
        config |= change
    with pytest.raises(UserError, match=r"num_epochs is 0, expected at least 1.*weights"):
        check_config({k: v for k, v in config.items() if v is not None}, "test_config.py")


def test_the_memory_is_made_of_evaluation_features_of_the_training_images(tmp_path):
    run = open_run(make_config(tmp_path, "meta"))
    refresh_memory(run)
    train = run.dataset.split.train
    run.model.eval()
    features = collect_outputs(
        run.model, run.dataset, train, run.augmentation, run.precision, ("features",), 7
    )["features"]
    labels = torch.as_tensor(run.dataset.source.labels[train])
    expected = build_memory(features, labels, 5, 2)
    torch.testing.assert_close(run.model.hash_head.memory, expected)
    centroid = torch.stack([features[labels == c].mean(0) for c in range(5)])
    torch.testing.assert_close(run.model.hash_head.memory[::3], centroid)


def test_a_fixed_network_keeps_its_weights_and_batch_statistics(tmp_path):
    config = make_config(tmp_path)
    config.networks["feat_model"].fix = True
    run = open_run(config)
    before = {k: v.clone() for k, v in run.model.feat_model.state_dict().items()}
    train_epoch(run, build_training(run), 0)
    _assert_equal_weights(before, run.model.feat_model.state_dict())


def test_fixed_statistics_stay_while_weights_are_trained(tmp_path):
    config = make_config(tmp_path)
    config.networks["feat_model"].fix_statistics = True
    run = open_run(config)
    before = {k: v.clone() for k, v in run.model.feat_model.state_dict().items()}
    train_epoch(run, build_training(run), 0)
    for name, value in run.model.feat_model.state_dict().items():
        if "running" in name:
            assert torch.equal(before[name], value), name
        elif "num_batches" not in name:
            assert not torch.equal(before[name], value), name


def test_losses_add_up_by_their_weights(tmp_path):
    """The gradient of two losses is the weighted sum of their own gradients."""
    entropy = {"def_file": "./loss/cross_entropy.py"}
    quantization = {"def_file": "./loss/quantization.py"}

    def gradient(criterions):
        config = make_config(tmp_path, optimizer={"name": "SGD", "params": {"lr": 1.0}})
        config.criterions = make_config(tmp_path, criterions=criterions).criterions
        if "classification" not in criterions:
            del config.criterions["classification"]
        run = open_run(config)
        run.model.eval()
        before = run.model.hash_head.hash_layer.weight.detach().clone()
        batch = [run.dataset.split.train[:6]]
        images, labels = next(run.dataset.batches(batch, run.augmentation))
        step(run, build_training(run), images, labels)
        return before - run.model.hash_head.hash_layer.weight.detach()

    both = gradient({"classification": {**entropy, "weight": 0.5}, "q": {**quantization}})
    alone = 0.5 * gradient({"classification": entropy}) + gradient({"q": quantization})
    torch.testing.assert_close(both, alone, rtol=1e-4, atol=1e-7)


def test_gradient_clipping_bounds_the_step(tmp_path):
    options = {"optimizer": {"name": "SGD", "params": {"lr": 1.0}}, "gradient_clip": 1e-3}
    run = open_run(make_config(tmp_path, **options))
    before = [p.detach().clone() for p in run.model.parameters()]
    images, labels = next(run.dataset.batches([run.dataset.split.train[:6]], run.augmentation))
    step(run, build_training(run), images, labels)
    moved = [p.detach() - b for p, b in zip(run.model.parameters(), before, strict=True)]
    assert sum(m.square().sum() for m in moved).sqrt() == pytest.approx(1e-3, rel=1e-3)


def test_the_last_epochs_take_the_final_augmentation(tmp_path):
    plain = {"crop_scale": [1.0, 1.0], "flip": False}
    ending = {"num_epochs": 3, "final_epochs": 1, "final_augmentation": plain}
    run, first, last = (
        open_run(make_config(tmp_path, num_workers=0, **options))
        for options in (ending, {}, {"augmentation": plain})
    )
    for epoch, same in enumerate((first, first, last)):
        found, expected = (next(train_batches(each, epoch))[0] for each in (run, same))
        assert torch.equal(found, expected)
    assert not torch.equal(next(train_batches(first, 2))[0], next(train_batches(last, 2))[0])


def test_the_class_aware_sampler_balances_an_epoch(tmp_path):
    run = open_run(make_config(tmp_path, sampler="class_aware", imbalance_factor=8))
    from engine.train import _index_batches

    labels = run.dataset.source.labels[np.concatenate(_index_batches(run, 0))]
    assert np.ptp(np.bincount(labels, minlength=5)) <= 1


def test_the_best_checkpoint_is_the_one_with_the_highest_validation_map(tmp_path, monkeypatch):
    maps = iter([0.3, 0.9, 0.5])

    class Result:
        def __init__(self, value):
            self.map, self.groups = value, {}

    monkeypatch.setattr("engine.train.validate", lambda run, _: Result(next(maps)))
    train_and_test(make_config(tmp_path, num_epochs=3))
    best = torch.load(tmp_path / BEST, weights_only=True)
    assert (best["epoch"], best["best_epoch"], best["best_map"]) == (2, 2, 0.9)


def _spoil(monkeypatch, steps):
    """Let the gradient and the loss of these steps, counted from 1, be NaN."""
    taken, forward = 0, Objective.forward

    def spoilt(self, images, labels):
        nonlocal taken
        losses = forward(self, images, labels)
        taken += self.training
        return {n: v * float("nan") for n, v in losses.items()} if taken in steps else losses

    monkeypatch.setattr(Objective, "forward", spoilt)


def test_a_loss_that_is_not_finite_stops_the_run_with_its_name_step_and_checkpoint(
    tmp_path, monkeypatch
):
    _spoil(monkeypatch, {11})
    words = (
        f"loss classification is not finite at step {11 - 2 * STEPS} of epoch 3; {LAST} is of "
        "epoch 2, before it; .*on_bad_loss=skip"
    )
    with pytest.raises(UserError, match=words):
        train_and_test(make_config(tmp_path, num_epochs=4))
    for name, value in _weights(tmp_path).items():
        assert value.isfinite().all(), name


def test_steps_with_such_losses_are_left_out_if_the_config_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("logging.Logger.propagate", True, raising=False)
    taken = []

    def count(run, training, images, labels):
        before = [each.clone() for each in training.objective.state_dict().values()]
        losses = step(run, training, images, labels)
        after = training.objective.state_dict().values()
        same = all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
        taken.append((bool(losses), not same))
        return losses

    _spoil(monkeypatch, {2, 7})
    monkeypatch.setattr("engine.train.step", count)
    metrics = train_and_test(make_config(tmp_path, on_bad_loss="skip"))
    expected = [number not in (2, 7) for number in range(1, 2 * STEPS + 1)]
    assert taken == [(each, each) for each in expected]
    assert "epoch 1: 1 of" in caplog.text
    assert metrics["map"] > 0


def test_a_run_of_nothing_but_such_steps_ends(tmp_path, monkeypatch):
    _spoil(monkeypatch, range(100))
    with pytest.raises(UserError, match=r"all \d+ steps of epoch 1 had losses or gradients"):
        train_and_test(make_config(tmp_path, on_bad_loss="skip"))


def test_weights_that_diverge_end_the_run_in_a_line(tmp_path):
    options = {"optimizer": {"name": "SGD", "params": {"lr": 1e30}}}
    with pytest.raises(UserError, match="loss classification is not finite at step 2 of epoch 1"):
        train_and_test(make_config(tmp_path, num_epochs=3, **options))


def test_a_loss_that_the_head_cannot_serve_is_a_user_error(tmp_path):
    config = make_config(tmp_path, criterions={"c": {"def_file": str(tmp_path / "loss.py")}})
    (tmp_path / "loss.py").write_text(
        "from torch import nn\n"
        "class L(nn.Module):\n"
        "    def forward(self, prototypes, labels): return prototypes.sum()\n"
        "def create_loss(): return L()\n"
    )
    with pytest.raises(UserError, match=r"criterions\.c needs prototypes"):
        train_and_test(config)


@pytest.mark.pictures
def test_a_run_leaves_the_documented_files(tmp_path):
    metrics = train_and_test(make_config(tmp_path, "meta"))
    files = {path.name for path in tmp_path.iterdir()}
    assert files >= {
        "config.yaml",
        "split.json",
        "log.txt",
        LAST,
        BEST,
        "codes.npz",
        "metrics.json",
        "report.html",
        "retrieval_grid.png",
    }
    assert any(name.startswith("events.out.tfevents") for name in files)
    assert not any(name.startswith(".tmp") for name in files)
    stored = json.loads((tmp_path / "metrics.json").read_text())
    assert stored["map"] == metrics["map"]
    assert stored["seconds"].keys() >= {"train", "validate", "encode", "evaluate"}
    assert stored["counts"]["train"] == len(open_run(make_config(tmp_path)).dataset.split.train)


def test_testing_again_gives_the_same_figures_and_keeps_the_training_time(tmp_path):
    config = make_config(tmp_path, "meta")
    first = train_and_test(config)
    again = run_test_only(make_config(tmp_path, "meta"))
    assert again["map"] == first["map"]
    assert again["seconds"]["train"] == first["seconds"]["train"]


def test_the_check_of_a_first_batch_leaves_no_trace(tmp_path):
    class CountingLoss(torch.nn.Module):
        calls = 0

        def forward(self, codes):
            self.calls += self.training
            return codes.square().mean()

    run = open_run(make_config(tmp_path))
    training, loss = build_training(run), CountingLoss()
    criterions = {"counting": Criterion(loss, 1.0, ["codes"])}
    training.objective = Objective(run.model, criterions, run.precision)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    check_first_batch(run, training)
    assert loss.calls == 0
    assert loss.training
    _assert_equal_weights(before, run.model.state_dict())


def test_a_batch_too_small_for_the_processes_is_one_line(tmp_path, monkeypatch):
    run = open_run(make_config(tmp_path))
    monkeypatch.setattr("utils.distributed.world_size", lambda: 5)
    with pytest.raises(UserError, match=r"batch_size is 8, expected at least 10"):
        build_training(run)
