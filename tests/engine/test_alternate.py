"""Runs that learn network and database codes in turn: what is kept, resumed, tested, added to."""

import json

import numpy as np
import pytest
import torch
from small_config import make_config

import engine.alternate as alternate
from engine.build import check_config_parts
from engine.checkpoint import BEST, LAST
from engine.coding import encode_lengths
from engine.config import check_config
from engine.experiment import profile, train_and_test
from engine.experiment import test_only as run_test_only
from engine.options import CriterionOptions
from engine.run import open_run
from retrieval.codes import load_codes, unpack
from utils.errors import UserError


def _config(folder, code_length=8, loss="adsh", head="flat", section=None, **changes):
    values = make_config(folder).to_dict()
    values["engine"] = "alternate"
    values["alternate"] = {"samples": 24, "iterations": 3, "epochs": 2, **(section or {})}
    values["training_opt"] |= {
        "code_length": code_length,
        "num_epochs": 0,
        "imbalance_factor": None,
        "optimizer": {"name": "AdamW", "params": {"lr": 3e-3}},
        **changes.pop("training_opt", {}),
    }
    values["networks"]["hash_head"] = {"def_file": f"./models/{head}_head.py"}
    values["criterions"] = {
        "codes": {"def_file": f"./loss/{loss}.py", "weight": changes.pop("weight", 1.0)}
    }
    values["data"] |= changes.pop("data", {})
    assert not changes
    return check_config({k: v for k, v in values.items() if v is not None}, "alternate_config.py")


def _codes(folder, name=BEST):
    stored = torch.load(folder / name, weights_only=True)["database_codes"]
    unpacked = {q: unpack(codes, q).numpy() for q, codes in stored["packed"].items()}
    return stored["names"], unpacked


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adsh")
    config = _config(folder, section={"iterations": 8, "epochs": 4})
    return folder, config, train_and_test(config, record=str(folder / "record.csv"))


def test_the_made_up_classes_are_learned(trained):
    assert trained[2]["map"] > 0.9


def test_the_database_is_coded_by_what_was_learned_and_the_rest_by_the_network(trained):
    folder, config, _ = trained
    run = open_run(config)
    split, source = run.dataset.split, run.dataset.source
    names, learned = _codes(folder)
    assert set(names) == {source.image_names[index] for index in split.train}
    codes = load_codes(folder / "codes.npz")
    by_name = dict(zip(names, learned[8], strict=True))
    alternate.load_networks(run.model, torch.load(folder / BEST, weights_only=True), "best")
    from_network = unpack(encode_lengths(run, split.database)[8].codes, 8)
    held_out = 0
    for name, stored, network in zip(
        codes.database_names, unpack(codes.database_codes, 8), from_network, strict=True
    ):
        held_out += name not in by_name
        assert np.array_equal(stored, by_name.get(name, network)), name
    assert held_out == len(split.validation) > 0
    queries = encode_lengths(run, split.query)[8].codes
    assert np.array_equal(codes.query_codes, queries)


def test_testing_the_checkpoint_gives_the_same_figures(trained):
    folder, config, first = trained
    again = run_test_only(config)
    assert again["map"] == first["map"]
    assert again["checkpoint"] == first["checkpoint"]
    assert (folder / "record.csv").read_text().count("\n") == 2


def test_a_checkpoint_without_codes_is_refused(trained, tmp_path):
    folder, _, _ = trained
    values = torch.load(folder / BEST, weights_only=True)
    del values["database_codes"]
    torch.save(values, tmp_path / "plain.pth")
    config = _config(tmp_path / "run")
    with pytest.raises(UserError, match="holds no database codes"):
        run_test_only(config, checkpoint=str(tmp_path / "plain.pth"))


def test_validation_never_uses_codes_learned_for_its_queries(trained):
    run = open_run(trained[1])
    learned = alternate._stored_codes(run, torch.load(trained[0] / BEST, weights_only=True), BEST)
    split = run.dataset.split
    assert not np.isin(learned.indices, np.union1d(split.validation, split.query)).any()


def test_a_resumed_run_ends_where_the_uninterrupted_one_does(tmp_path, monkeypatch):
    whole = train_and_test(_config(tmp_path / "whole"))

    def stop_in_turn_2(alternation, turn):
        if turn == 1:
            raise KeyboardInterrupt
        return alternate_turn(alternation, turn)

    alternate_turn = alternate.take_turn
    broken = _config(tmp_path / "broken")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("engine.alternate.take_turn", stop_in_turn_2)
        train_and_test(broken)
    resumed = train_and_test(broken, resume=True)
    assert resumed["map"] == whole["map"]
    last = [torch.load(tmp_path / each / LAST, weights_only=True) for each in ("whole", "broken")]
    assert last[0]["epoch"] == last[1]["epoch"] == 6
    (names, codes), (other_names, other_codes) = (
        _codes(tmp_path / each, LAST) for each in ("whole", "broken")
    )
    assert names == other_names
    assert np.array_equal(codes[8], other_codes[8])
    for name, value in last[0]["networks"]["hash_head"].items():
        assert torch.equal(value, last[1]["networks"]["hash_head"][name])


def test_turns_draw_different_images_and_show_them_by_their_places(tmp_path):
    run = open_run(_config(tmp_path))
    alternation = alternate.build_alternation(run)
    first, second = alternation.draw(0), alternation.draw(1)
    assert not np.array_equal(first.rows, second.rows)
    images = alternation.learned.indices[second.rows]
    assert np.array_equal(alternation.view.dataset.split.train, images)
    assert alternation.view.dataset.labels[images].tolist() == list(range(24))


def test_multi_label_images_are_learned_too(tmp_path):
    params = {"num_classes": 5, "image_size": 8, "images_per_class": 16, "multi_label": True}
    metrics = train_and_test(_config(tmp_path, data={"params": params}))
    assert 0 < metrics["map"] <= 1


def test_codes_can_start_from_classes(tmp_path):
    config = _config(tmp_path, [4, 8], weight=[2, 1], section={"start": "classes"})
    alternation = alternate.build_alternation(open_run(config))
    learned = alternation.learned
    alternation.start_codes(alternation.draw(0))
    labels = alternation.run.dataset.source.labels[learned.indices]
    for codes in learned.codes.values():
        by_class = [codes[labels == c].unique(dim=0) for c in range(5)]
        assert [len(each) for each in by_class] == [1] * 5
        assert len(torch.cat(by_class).unique(dim=0)) == 5
    assert train_and_test(config)["runs"][0]["map"] > 0.5


def test_several_labels_have_no_code_of_a_class(tmp_path):
    params = {"num_classes": 5, "image_size": 8, "images_per_class": 16, "multi_label": True}
    config = _config(tmp_path / "run", data={"params": params}, section={"start": "classes"})
    with pytest.raises(UserError, match="use 'network'"):
        train_and_test(config)


@pytest.mark.parametrize("head", ["flat", "cascade"])
def test_three_lengths_are_learned_in_one_run_each_with_codes_of_its_own(tmp_path, head):
    config = _config(tmp_path, [4, 8, 16], head=head, weight=[4, 2, 1])
    assert config.criterions["codes"].weight == [4, 2, 1]
    metrics = train_and_test(config)
    assert metrics["code_lengths"] == [4, 8, 16]
    _, codes = _codes(tmp_path)
    assert {q: each.shape[1] for q, each in codes.items()} == {4: 4, 8: 8, 16: 16}
    for q in (4, 8, 16):
        stored = load_codes(tmp_path / f"{q}bits" / "codes.npz")
        rows = {tuple(row) for row in unpack(stored.database_codes, q)}
        assert rows >= {tuple(row) for row in codes[q]}
    assert [each["map"] for each in run_test_only(config)["runs"]] == [
        each["map"] for each in metrics["runs"]
    ]


def test_losses_of_several_lengths_are_weighted_each(tmp_path):
    run = open_run(_config(tmp_path, [4, 8, 16], weight=[4, 2, 1]))
    training = alternate.build_alternation(run).training
    weights = {name: each.weight for name, each in training.criterions.items()}
    assert weights == {"codes/4bits": 4, "codes/8bits": 2, "codes/16bits": 1}


@pytest.fixture(scope="module")
def increments(tmp_path_factory):
    """Three classes, then a fourth, then the fifth."""
    folder = tmp_path_factory.mktemp("dihn")
    train_and_test(_config(folder / "three", data={"train_classes": 3}))
    for name, base, classes in (("four", "three", 4), ("five", "four", None)):
        config = _config(
            folder / name,
            loss="dihn",
            section={"base": str(folder / base / BEST)},
            data={"train_classes": classes},
        )
        train_and_test(config)
    return folder


def test_old_codes_stay_bit_for_bit_through_several_increments(increments):
    before = dict(zip(*_pairs(increments / "three"), strict=True))
    for name, classes in (("four", 4), ("five", 5)):
        after = dict(zip(*_pairs(increments / name), strict=True))
        assert before.keys() < after.keys()
        assert all(np.array_equal(after[image], code) for image, code in before.items())
        assert len(after) == classes * len(before) // (classes - 1)
        written = load_codes(increments / name / "codes.npz")
        stored = dict(zip(written.database_names, unpack(written.database_codes, 8), strict=True))
        assert all(np.array_equal(stored[image], code) for image, code in after.items())
        before = after


def test_codes_of_arriving_classes_start_beside_the_old_ones(increments, tmp_path):
    section = {"base": str(increments / "three" / BEST), "start": "classes"}
    config = _config(tmp_path, loss="dihn", section=section, data={"train_classes": 4})
    alternation = alternate.build_alternation(open_run(config))
    learned = alternation.learned
    before = learned.codes[8].clone()
    alternation.start_codes(alternation.draw(0))
    assert torch.equal(learned.codes[8][: learned.fixed], before[: learned.fixed])
    (code,) = learned.codes[8][learned.fixed :].unique(dim=0)
    distances = (code != learned.codes[8][: learned.fixed]).sum(1)
    assert int(distances.min()) >= 2


def test_new_classes_are_found_after_they_arrived(increments):
    maps = [
        json.loads((increments / name / "metrics.json").read_text())["map"]
        for name in ("three", "five")
    ]
    assert maps[1] > maps[0]


def test_an_increment_resumes_without_its_base_and_keeps_the_old_codes(increments, tmp_path):
    folder = tmp_path / "run"
    base = tmp_path / "base.pth"
    base.write_bytes((increments / "four" / BEST).read_bytes())
    config = _config(folder, loss="dihn", section={"base": str(base)})
    first = train_and_test(config)
    base.unlink()
    again = train_and_test(config, resume=True)
    assert again["map"] == first["map"]
    assert torch.load(folder / LAST, weights_only=True)["database_codes"]["fixed"] > 0


def test_a_base_without_anything_new_says_so(increments, tmp_path):
    config = _config(
        tmp_path / "run", loss="dihn", section={"base": str(increments / "five" / BEST)}
    )
    with pytest.raises(UserError, match="nothing has arrived"):
        train_and_test(config)


def test_a_base_of_another_split_is_refused(increments, tmp_path):
    config = _config(
        tmp_path / "run",
        loss="dihn",
        section={"base": str(increments / "three" / BEST)},
        training_opt={"seed": 1},
    )
    with pytest.raises(UserError, match="codes of images that this run asks with"):
        train_and_test(config)


def test_a_base_with_codes_of_open_queries_is_refused(increments, tmp_path):
    base = tmp_path / "base.pth"
    data = {"open_classes": ["class_1"]}
    config = _config(tmp_path / "run", loss="dihn", section={"base": str(base)}, data=data)
    run = open_run(config)
    stored = torch.load(increments / "three" / BEST, weights_only=True)
    codes = stored["database_codes"]
    codes["names"] = [run.dataset.source.image_names[i] for i in run.dataset.split.open_query]
    codes["packed"] = {8: codes["packed"][8][: len(codes["names"])]}
    torch.save(stored, base)
    with pytest.raises(UserError, match="codes of images that this run asks with"):
        alternate.build_alternation(run)


def _pairs(folder):
    names, codes = _codes(folder)
    return names, codes[8]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"section": {"samples": 1}}, "samples is 1"),
        ({"section": {"iterations": 0}}, "iterations is 0"),
        ({"section": {"dissimilar": -1.0}}, "dissimilar is -1"),
        ({"section": {"dissimilar": float("nan")}}, "dissimilar is nan"),
        ({"training_opt": {"num_epochs": 4}}, "leave num_epochs out"),
    ],
)
def test_mistakes_in_the_section_are_one_line(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        _config(tmp_path, **changes)


def test_weights_of_another_number_than_lengths_are_refused(tmp_path):
    config = _config(tmp_path / "run", [4, 8, 16], weight=[4, 2])
    with pytest.raises(UserError, match="one a code length"):
        train_and_test(config)


def test_a_loss_that_knows_no_database_is_refused(tmp_path):
    config = _config(tmp_path / "run", loss="quantization")
    with pytest.raises(UserError, match=r"loss/adsh\.py"):
        train_and_test(config)


def test_several_processes_and_a_trace_are_refused_in_a_line(tmp_path, monkeypatch):
    config = _config(tmp_path / "run")
    check_config_parts(config)
    with pytest.raises(UserError, match="no training steps"):
        profile(config)
    monkeypatch.setattr("utils.distributed.world_size", lambda: 2)
    with pytest.raises(UserError, match="one process"):
        train_and_test(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("code_length", [8, [4, 8, 16]])
def test_captured_steps_see_each_turns_codes(tmp_path, code_length):
    """A capture that kept the first turn's codes would not learn the later ones'."""
    maps = {}
    for mode in ("none", "graph"):
        options = {"device": "cuda", "accelerate": mode, "precision": "fp32"}
        section = {"iterations": 8, "epochs": 4}
        config = _config(tmp_path / mode, code_length, training_opt=options, section=section)
        metrics = train_and_test(config)
        maps[mode] = [each["map"] for each in metrics.get("runs", [metrics])]
    means = {mode: np.mean(found) for mode, found in maps.items()}  # few bits vary by themselves
    assert means["graph"] > 0.75
    assert means["graph"] == pytest.approx(means["none"], abs=0.12)


def test_a_loss_that_would_take_places_in_the_sample_for_labels_is_refused(tmp_path):
    config = _config(tmp_path)
    config.criterions["pairs"] = CriterionOptions("./loss/hashnet.py")
    with pytest.raises(UserError, match=r"criterions\.pairs cannot read them"):
        alternate.build_alternation(open_run(config))
    config.criterions["pairs"] = CriterionOptions("./loss/quantization.py")  # reads codes alone
    assert alternate.build_alternation(open_run(config)).losses.keys() == {8}
