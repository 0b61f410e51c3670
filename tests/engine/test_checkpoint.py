"""A checkpoint loads whole and exactly, or says what does not fit."""

import pickle

import pytest
import torch
from small_config import make_config

from engine.checkpoint import (
    BEST,
    LAST,
    check_same_config,
    load_checkpoint,
    load_network,
    load_networks,
    save_checkpoint,
)
from engine.config import load_config
from engine.experiment import test_only as run_test_only
from engine.experiment import train_and_test
from engine.run import open_run
from utils.errors import UserError


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    train_and_test(make_config(folder))
    return folder


def _stage_2(folder, weights, **changes):
    fresh = ["hallucinator", "selector", "memory"]
    head = {"def_file": "./models/meta_embedding_head.py", "weights": weights, "fresh": fresh}
    return make_config(folder, "meta", networks={"hash_head": {**head, **changes}})


def test_a_missing_stage_1_checkpoint_is_named_and_nothing_is_written(tmp_path):
    with pytest.raises(UserError, match=r"one/none\.pth does not exist; train it first"):
        train_and_test(_stage_2(tmp_path / "two", "one/none.pth"))
    assert not (tmp_path / "two").exists()


def test_missing_names_are_listed(tmp_path, trained):
    config = _stage_2(tmp_path / "two", str(trained / BEST), fresh=["memory"])
    with pytest.raises(UserError, match=r"missing: hallucinator\.weight.*selector"):
        train_and_test(config)
    assert not (tmp_path / "two").exists()


def test_unexpected_names_and_other_shapes_are_listed():
    network = torch.nn.Linear(3, 2)
    with pytest.raises(UserError, match=r"missing: bias; unexpected: extra; of another shape"):
        load_network(network, {"weight": torch.zeros(2, 4), "extra": torch.zeros(1)}, "x")


def test_another_code_length_is_named_by_its_shapes(tmp_path, trained):
    config = _stage_2(tmp_path, str(trained / BEST))
    config.training_opt.code_length = 16
    with pytest.raises(UserError, match=r"hash_layer\.weight \(8, 16\) instead of \(16, 16\)"):
        train_and_test(config)


def test_a_checkpoint_of_another_split_is_refused(tmp_path, trained):
    path = str(trained / BEST)
    with pytest.raises(UserError, match="was trained on split"):
        run_test_only(make_config(tmp_path / "run", seed=1), checkpoint=path)
    with pytest.raises(UserError, match="was trained on split"):
        config = _stage_2(tmp_path / "two", path)
        config.training_opt.seed = 1
        train_and_test(config)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_other_networks_is_refused(tmp_path, trained):
    config = make_config(tmp_path)
    config.networks["my_head"] = config.networks.pop("hash_head")
    with pytest.raises(UserError, match=r"no network 'my_head' \(networks in it: feat_model"):
        run_test_only(config, checkpoint=str(trained / BEST))


class _Malicious:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize("content", ["pickle", "half", "text", "list", "empty", "lines"])
def test_a_file_that_is_no_plain_checkpoint_is_refused(tmp_path, trained, content, capsys):
    path = tmp_path / "bad.pth"
    if content == "empty":
        path.write_bytes(b"")
    elif content == "pickle":
        path.write_bytes(pickle.dumps(_Malicious(), protocol=2))
    elif content == "half":
        whole = (trained / BEST).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif content == "lines":
        path.write_text("root:x:0:0:root\nbin:x:1:1\n")
    elif content == "text":
        path.write_text("weights")
    else:
        torch.save([1, 2], path)
    with pytest.raises(UserError) as raised:
        load_checkpoint(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "code ran" not in capsys.readouterr().out


def test_the_figures_of_a_run_are_not_replaced_by_another_checkpoints(tmp_path, trained):
    config = make_config(tmp_path / "other", num_epochs=1)
    train_and_test(config)
    with pytest.raises(UserError, match="holds the figures of its own checkpoint"):
        run_test_only(config, checkpoint=str(trained / BEST))
    run_test_only(config, checkpoint=str(tmp_path / "other" / BEST))


def test_broken_earlier_figures_do_not_stop_a_test(tmp_path):
    train_and_test(make_config(tmp_path))
    (tmp_path / "metrics.json").write_text("{")
    assert run_test_only(make_config(tmp_path))["map"] > 0


def test_the_test_of_a_given_checkpoint_equals_the_trained_runs(tmp_path, trained):
    again = run_test_only(make_config(tmp_path / "run"), checkpoint=str(trained / BEST))
    assert again["map"] == run_test_only(make_config(trained))["map"]


def test_the_checkpoint_says_what_it_was_trained_on(trained):
    checkpoint = load_checkpoint(trained / BEST)
    run = open_run(make_config(trained))
    assert checkpoint["split_digest"] == run.dataset.digest
    assert checkpoint["class_counts"] == run.dataset.split.class_counts.tolist()
    assert checkpoint["config"]["training_opt"]["code_length"] == 8


def test_a_run_from_before_an_option_existed_is_resumed_with_its_default(tmp_path):
    first = train_and_test(make_config(tmp_path))
    checkpoint = torch.load(tmp_path / LAST, weights_only=True)
    del checkpoint["config"]["training_opt"]["final_epochs"]
    del checkpoint["config"]["training_opt"]["final_augmentation"]
    del checkpoint["config"]["networks"]["feat_model"]["fix_statistics"]
    torch.save(checkpoint, tmp_path / LAST)
    assert train_and_test(make_config(tmp_path), resume=True)["map"] == first["map"]
    other = make_config(tmp_path, final_epochs=1, final_augmentation={"flip": False})
    with pytest.raises(UserError, match=r"final_augmentation.flip \(was None, is False\)"):
        train_and_test(other, resume=True)


def test_an_option_that_did_not_exist_had_its_default_in_every_section():
    config = load_config("config/Cifar10/adsh.py")
    before = config.to_dict()
    del before["alternate"]["sweeps"], before["data"]["decode"]
    check_same_config({"config": before}, config, "last.pth")
    config.alternate.sweeps += 1
    with pytest.raises(UserError, match=r"alternate.sweeps \(was 1, is 2\)"):
        check_same_config({"config": before}, config, "last.pth")


def test_another_base_is_another_run_and_other_first_weights_are_not():
    config = load_config("config/Cifar10_Incremental/dihn.py")
    before = config.to_dict()
    next(iter(config.networks.values())).weights = "elsewhere.pth"
    check_same_config({"config": before}, config, "last.pth")
    config.alternate.base = "another.pth"
    with pytest.raises(UserError, match=r"alternate.base \(was .*, is another.pth\)"):
        check_same_config({"config": before}, config, "last.pth")


def test_a_full_disk_is_one_line_and_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.pth"
    save_checkpoint(path, {"epoch": 1})

    def fail(values, file):
        raise RuntimeError("[enforce fail at inline_container.cc:671]\nunexpected pos")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(UserError, match=r"last\.pth cannot be written .* free space there"):
        save_checkpoint(path, {"epoch": 2})
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["last.pth"]


def test_more_networks_than_the_config_has_are_refused(tmp_path, trained):
    checkpoint = load_checkpoint(trained / BEST)
    checkpoint["state_dict_best"]["extra_head"] = {"weight": torch.zeros(1)}
    save_checkpoint(tmp_path / "x.pth", checkpoint)
    with pytest.raises(UserError, match="networks that the config lacks: extra_head"):
        run_test_only(make_config(tmp_path / "run"), checkpoint=str(tmp_path / "x.pth"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epoch", "2"),
        ("split_digest", 3),
        ("config", [1]),
        ("class_names", "abc"),
        ("losses", None),
    ],
)
def test_what_a_checkpoint_says_of_itself_has_the_right_type(tmp_path, trained, key, value):
    checkpoint = {**load_checkpoint(trained / BEST), key: value}
    save_checkpoint(tmp_path / "x.pth", checkpoint)
    with pytest.raises(UserError, match=f"holds a {type(value).__name__} as {key}"):
        load_checkpoint(tmp_path / "x.pth")


def test_a_number_in_place_of_a_tensor_is_named(tmp_path, trained):
    checkpoint = load_checkpoint(trained / BEST)
    checkpoint["state_dict_best"]["hash_head"]["hash_layer.bias"] = 0.5
    save_checkpoint(tmp_path / "x.pth", checkpoint)
    run = open_run(make_config(trained))
    with pytest.raises(UserError, match=r"holds a float as hash_head\.hash_layer\.bias"):
        load_networks(run.model, load_checkpoint(tmp_path / "x.pth"), tmp_path / "x.pth")


@pytest.mark.parametrize("path", ["", " ", "no/such\0file.pth", "x" * 300, "é" * 300 + "/x.pth"])
def test_names_that_no_file_can_have_are_a_line(path):
    with pytest.raises(UserError) as raised:
        load_checkpoint(path)
    assert "\n" not in str(raised.value)


def test_unreadable_initial_weights_name_their_key(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"")
    config = _stage_2(tmp_path / "two", str(tmp_path / "x.pth"))
    with pytest.raises(UserError, match=r"^networks\.hash_head\.weights: .* is empty"):
        open_run(config)
