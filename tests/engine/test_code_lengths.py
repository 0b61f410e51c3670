"""A run of several code lengths leaves what a run of each would, and one row a length."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_config import make_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.build import build_criterions
from engine.code_lengths import Validation
from engine.coding import encode_lengths, network_encoders
from engine.evaluate import validate
from engine.experiment import test_only as run_test_only
from engine.experiment import train_and_test
from engine.objective import Objective
from engine.run import open_run
from retrieval.codes import load_codes, unpack
from utils.errors import UserError
from utils.log import start_logging

LENGTHS = [4, 8, 16]
HEADS = str(Path(__file__).with_name("several_heads.py"))


def _config(folder, **changes):
    networks = {"hash_head": {"def_file": HEADS}}
    return make_config(folder, code_length=LENGTHS, networks=networks, **changes)


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    start_logging()
    folder = tmp_path_factory.mktemp("several")
    config = _config(folder, data={"open_classes": 1})
    metrics = train_and_test(config, record=str(folder / "record.csv"), open_set=True)
    return folder, config, metrics


def test_each_length_has_a_folder_and_the_top_has_the_figures_of_all(tested):
    folder, _, metrics = tested
    assert json.loads((folder / "metrics.json").read_text())["code_lengths"] == LENGTHS
    assert [each["code_length"] for each in metrics["runs"]] == LENGTHS
    for length, expected in zip(LENGTHS, metrics["runs"], strict=True):
        stored = json.loads((folder / f"{length}bits" / "metrics.json").read_text())
        assert stored["map"] == expected["map"]
        assert "auroc" in stored["open_set"]
        codes = load_codes(folder / f"{length}bits" / "codes.npz")
        assert codes.code_length == length
    assert not (folder / "codes.npz").exists()


def test_the_codes_of_each_length_are_the_signs_of_its_output(tested):
    _, config, _ = tested
    run = open_run(config)
    indices = run.dataset.split.query[:6]
    run.model.eval()
    images, _ = next(run.dataset.batches([indices], run.augmentation))
    outputs = run.model(images)
    for length, encoded in encode_lengths(run, indices).items():
        expected = np.where(outputs[f"codes_{length}"].detach().numpy() >= 0, 1, -1)
        assert np.array_equal(unpack(encoded.codes, length), expected)


def test_one_pass_over_the_images_serves_all_lengths(tested, monkeypatch):
    run = open_run(tested[1])
    passes = []

    def spy(run, indices):
        passes.append(indices)
        return encode_lengths(run, indices)

    monkeypatch.setattr("engine.coding.encode_lengths", spy)
    encoders = network_encoders(run)
    for indices in (run.dataset.split.query, run.dataset.split.database):
        for encoder in encoders.values():
            assert len(encoder(run, indices).codes) == len(indices)
    assert len(passes) == 2


def test_a_record_has_a_row_a_length(tested):
    folder, _, metrics = tested
    rows = list(csv.DictReader((folder / "record.csv").open()))
    assert [int(row["code_length"]) for row in rows] == LENGTHS
    for row, each in zip(rows, metrics["runs"], strict=True):
        assert float(row["map"]) == pytest.approx(each["map"], rel=1e-5)


def test_the_order_of_the_database_counts_for_few_bits_alone(tested):
    *few, many = tested[2]["runs"]
    assert "map_index_order" not in many
    for each in few:
        assert each["map_pessimistic"] <= each["map_index_order"] <= each["map_optimistic"]


def test_each_length_logs_a_line_and_scalars_of_its_own(tested):
    folder, _, metrics = tested
    log = (folder / "log.txt").read_text()
    for length, each in zip(LENGTHS, metrics["runs"], strict=True):
        assert f"test, {length} bits" in log
        events = EventAccumulator(str(folder / f"{length}bits")).Reload()
        assert events.Scalars("test/map")[-1].value == pytest.approx(each["map"])


def test_testing_again_gives_the_same_figures_and_keeps_the_training_time(tested):
    _, config, first = tested
    again = run_test_only(config)
    for one, other in zip(first["runs"], again["runs"], strict=True):
        assert one["map"] == other["map"]
        assert one["seconds"]["train"] == other["seconds"]["train"]


def test_a_checkpoint_is_chosen_by_the_mean_over_lengths(tested):
    found = validate(open_run(tested[1]))
    assert list(found.by_length) == LENGTHS
    assert found.map == pytest.approx(np.mean([each.map for each in found.by_length.values()]))
    only = Validation({4: found.by_length[4]})
    assert (only.map, only.groups) == (found.by_length[4].map, found.by_length[4].groups)


def test_a_loss_of_codes_counts_once_a_length_by_its_weight(tmp_path):
    losses = {
        "classification": {"def_file": "./loss/cross_entropy.py"},
        "binary": {"def_file": "./loss/quantization.py", "weight": [4, 2, 1]},
    }
    config = _config(tmp_path, criterions=losses)
    criterions = build_criterions(config, 5, torch.ones(5), torch.device("cpu"))
    assert list(criterions) == [
        "classification", "binary/4bits", "binary/8bits", "binary/16bits"
    ]  # fmt: skip
    run = open_run(config)
    images, labels = next(run.dataset.batches([run.dataset.split.train[:6]], run.augmentation))
    found = Objective(run.model, criterions, run.precision)(images, labels)
    outputs = run.model(images)
    for q, weight in zip(LENGTHS, (4, 2, 1), strict=True):
        expected = weight * (outputs[f"codes_{q}"].abs() - 1).square().mean()
        torch.testing.assert_close(found[f"binary/{q}bits"], expected, rtol=1e-2, atol=1e-3)


def test_a_head_of_one_length_says_so(tmp_path):
    with pytest.raises(UserError, match=r"networks\.hash_head takes one code length"):
        train_and_test(make_config(tmp_path / "run", code_length=LENGTHS))
    several = {"hash_head": {"def_file": HEADS}}
    with pytest.raises(UserError, match=r"networks\.hash_head takes several code lengths"):
        train_and_test(make_config(tmp_path / "run", networks=several))
