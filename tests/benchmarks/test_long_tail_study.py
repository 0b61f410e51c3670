"""Experiments change what they say, ask validation queries only, and go on from their weights."""

import numpy as np
import pytest

from benchmarks import long_tail_study, study_run
from benchmarks.study_run import Continuation, Experiment, run_experiment
from engine.config import load_config
from engine.train import build_training
from retrieval.metrics import evaluate

DIGITS = "config/Digits_LT/stage_1.py"
SMALL = (
    "training_opt.num_epochs=2",
    "training_opt.feature_dim=16",
    "networks.feat_model.params.width=4",
    "training_opt.device=cpu",
)


def planned(*arguments):
    return long_tail_study.plan(long_tail_study._options(list(arguments)))


@pytest.mark.parametrize("change", long_tail_study.CHANGES)
def test_every_change_is_a_valid_config_of_its_own(change):
    options = planned("--changes", change)[0].options
    config = load_config(long_tail_study.STAGE_1, list(options))
    plain = load_config(long_tail_study.STAGE_1, list(planned("--changes", "none")[0].options))
    same = ("none", *long_tail_study.SHIPPED)
    assert (config.to_dict() == plain.to_dict()) == (change in same)
    assert not set(long_tail_study._options([]).changes) & set(long_tail_study.SHIPPED)
    assert config.data.validation_per_class == 50


def test_changes_add_up_and_unknown_ones_are_one_line(capsys):
    both = planned("--changes", "no_trivial_augment+batch_128")[0].options
    config = load_config(long_tail_study.STAGE_1, list(both))
    assert config.training_opt.batch_size == 128
    assert config.training_opt.augmentation["trivial_augment"] is False
    assert long_tail_study.main(["--changes", "no_such"]) == 2
    assert "unknown" in capsys.readouterr().err


@pytest.mark.parametrize("then", ["direct", "memory", "memory_k0", "cosine", "cosine_heads"])
def test_what_trains_on_does_so_by_one_schedule_whatever_was_changed_before(then):
    (one,) = planned("--changes", "epochs_100+backbone_lr_2e-4", "--then", then)
    after = one.after[then]
    options = load_config(after.config, [*one.options, *after.options])
    assert options.training_opt.num_epochs == 40
    assert options.training_opt.optimizer["params"]["lr"] == 5e-4
    assert options.networks["feat_model"].optim_params == {"lr": 5e-5}


def test_the_published_memory_is_that_of_lthnet_but_for_its_weights():
    found = [long_tail_study.THEN[name] for name in ("memory", "memory_k0")]
    configs = [load_config(each.config, list(each.options)) for each in found]
    for config, name in zip(configs, ("lthnet_published", "lthnet_published_k0"), strict=True):
        published = load_config(f"config/Cifar100_LT/{name}.py")
        assert config.networks["hash_head"].params == published.networks["hash_head"].params
        assert config.memory == published.memory


def test_what_is_not_trained_has_no_epochs_and_other_options_of_the_head_than_the_default():
    for name in [name for name in long_tail_study.THEN if "untrained" in name]:
        (one,) = planned("--changes", "epochs_100", "--then", name)
        after = one.after[name]
        config = load_config(after.config, [*one.options, *after.options])
        assert config.training_opt.num_epochs == 0
        config = load_config(after.config, list(after.options))
        shipped = load_config(long_tail_study.STAGE_2)
        same = config.to_dict() == shipped.to_dict()
        assert same == (name == "untrained_power_whitened")


def test_another_config_is_changed_by_name_but_goes_on_to_nothing(capsys):
    (one,) = planned("--config", "config/Cifar100_LT/csq.py", "--changes", "epochs_30")
    assert one.name == "csq: epochs_30" and one.config == "config/Cifar100_LT/csq.py"
    config = load_config(one.config, list(one.options))
    assert config.training_opt.method == "csq" and config.training_opt.num_epochs == 30
    assert long_tail_study.main(["--config", one.config, "--changes", "logit_adjustment"]) == 2
    assert "criterions" in capsys.readouterr().err
    assert long_tail_study.main(["--config", one.config, "--then", "direct"]) == 2
    assert "--then goes on from" in capsys.readouterr().err


def test_without_a_classifier_accuracy_is_left_empty():
    pairwise = "config/Digits_LT/hashnet.py"
    options = ("training_opt.num_epochs=1", *SMALL[1:])
    (row,) = run_experiment(Experiment("small", pairwise, options, {}))
    assert row["accuracy"] == "" and float(row["map"]) > 0


def test_cells_are_seeds_factors_and_lengths():
    found = planned("--changes", "none", "--seeds", "0", "1", "--bits", "32", "64")
    assert len(found) == 4
    assert {each.options[1] for each in found} == {"training_opt.seed=0", "training_opt.seed=1"}


def test_an_experiment_scores_validation_queries_and_goes_on_from_its_weights(monkeypatch):
    started = []

    def build(run):
        started.append((run, {k: v.clone() for k, v in run.model.state_dict().items()}))
        return build_training(run)

    monkeypatch.setattr(study_run, "build_training", build)
    again = Continuation(DIGITS, ("training_opt.num_epochs=1",))
    rows = list(run_experiment(Experiment("small", DIGITS, SMALL, {"longer": again})))
    assert [row["change"] for row in rows] == ["small", "small; then longer"]
    first, second = started
    trained = first[0].model.state_dict()
    assert all(np.array_equal(value, trained[key]) for key, value in second[1].items())
    split, labels = second[0].dataset.split, second[0].dataset.source.labels
    database = np.setdiff1d(split.database, split.validation)
    queries, searched = (
        study_run.encode(second[0], indices).codes for indices in (split.validation, database)
    )
    expected = evaluate(
        queries, searched, labels[split.validation], labels[database], code_length=32, top_k=()
    )
    assert rows[1]["map"] == f"{expected.map:.4f}"
    assert rows[1]["validation_queries"] == len(split.validation)
    assert not np.isin(split.query, split.validation).any()


def test_rows_are_recorded_as_they_come_and_failures_do_not_stop_the_others(
    tmp_path, capfd, monkeypatch
):
    record = tmp_path / "study.csv"
    options = long_tail_study._options(["--gpus", "0", "--record", str(record)])
    good = Experiment("good", DIGITS, SMALL, {"no such": Continuation("config/none.py")})
    assert long_tail_study.execute(options, [good]) == 1  # what goes on fails
    assert [line.split(",")[0] for line in record.read_text().splitlines()] == ["change", "good"]
    printed = capfd.readouterr().out
    assert "good, IF" in printed
    assert "good: failed, UserError" in printed
