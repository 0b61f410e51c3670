"""A config's protocol and training classes reach the split, the figures and the losses."""

import csv
import math

import numpy as np
import pytest
import torch
import yaml
from small_config import make_config

from data.manifest import digest
from engine.dataset import open_source
from engine.experiment import train_and_test
from engine.run import open_run
from utils.errors import UserError

PROTOCOL = {
    "dataset": "made-up images",
    "publication": "none",
    "labels": "single",
    "queries": {"per_class": 4},
    "train": {"per_class": 6},
    "database": "rest",
    "metric": "MAP@7",
    "expected": {"classes": 5, "query": 20, "train": 30, "database": 60},
}


@pytest.fixture
def protocol(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(PROTOCOL))
    return str(path)


def config(folder, data, **changes):
    data = {"queries_per_class": None, **data}
    return make_config(folder, imbalance_factor=None, data=data, **changes)


def test_the_protocols_figure_comes_first_and_is_recorded(tmp_path, protocol, caplog):
    run = config(tmp_path / "run", {"protocol": protocol})
    with caplog.at_level("INFO"):
        metrics = train_and_test(run, record=str(tmp_path / "r.csv"))
    assert metrics["counts"] == {"train": 30, "validation": 10, "query": 20, "database": 60}
    assert (metrics["protocol"], metrics["metric"]) == ("small", "MAP@7")
    assert metrics["headline"] == metrics["map_at_k"][7]
    (row,) = csv.DictReader((tmp_path / "r.csv").open())
    assert (row["protocol"], row["metric"]) == ("small", "MAP@7")
    assert float(row["headline"]) == pytest.approx(metrics["headline"], rel=1e-5)
    line = f"MAP@7, ties expected, protocol small: map_at_7 {metrics['headline']:.4f}, map "
    assert any(line in message for message in caplog.messages)


def test_without_a_protocol_the_figure_is_map_at_all(tmp_path):
    metrics = train_and_test(make_config(tmp_path, num_epochs=1))
    assert (metrics["metric"], metrics["headline"]) == ("MAP@ALL", metrics["map"])


def test_a_written_split_brings_its_protocol_back(tmp_path, protocol):
    drawn = train_and_test(config(tmp_path / "run", {"protocol": protocol}))
    split_file = str(tmp_path / "run" / "split.json")
    read = open_run(config(tmp_path / "other", {"split_file": split_file})).dataset
    assert (read.split.protocol, read.split.metric) == ("small", "MAP@7")
    assert digest(read.manifest) == drawn["split_digest"]
    with pytest.raises(UserError, match=r"holds a whole split; leave data\.protocol"):
        open_run(config(tmp_path / "o", {"split_file": split_file, "protocol": protocol}))


@pytest.mark.parametrize(
    "criterion", ["class_balanced", "square", "logit_adjustment", "cross_entropy"]
)
def test_classes_without_training_images_leave_losses_and_figures_finite(
    tmp_path, protocol, criterion
):
    metrics = train_and_test(
        config(
            tmp_path,
            {"protocol": protocol, "train_classes": 3},
            num_epochs=1,
            sampler="class_aware",
            criterions={"classification": {"def_file": f"./loss/{criterion}.py"}},
        )
    )
    assert metrics["protocol"] == "small; trained on 3 of 5 classes"
    assert metrics["counts"] == {"train": 18, "validation": 6, "query": 20, "database": 60}
    assert math.isfinite(metrics["map"])
    assert metrics["groups"]["few"] == pytest.approx(metrics["map"])  # all classes have < 20
    assert len([each for each in metrics["map_per_class"] if each is not None]) == 5


def test_the_memory_of_a_class_without_images_is_finite(tmp_path, protocol):
    data = {"protocol": protocol, "train_classes": ["class_1", "class_3"]}
    metrics = train_and_test(config(tmp_path, data, head="meta", num_epochs=1))
    assert math.isfinite(metrics["map"])


def test_wrong_counts_are_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**PROTOCOL, "expected": {**PROTOCOL["expected"], "train": 31}}))
    with pytest.raises(UserError, match=r"found 30 train \(expected 31\)"):
        train_and_test(config(tmp_path / "run", {"protocol": str(path)}))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="of the CPU")
def test_a_cpu_evaluates_images_channels_last_and_the_pixels_are_the_same(tmp_path):
    run = open_run(make_config(tmp_path))
    index_batches = [np.arange(6), np.arange(6, 10)]
    given = run.dataset.images.batches(
        index_batches, run.augmentation, training=False, seed=0, device=run.device
    )
    own = run.dataset.batches(index_batches, run.augmentation)
    for (images, labels), (expected, indices) in zip(own, given, strict=True):
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(images, expected)
        assert torch.equal(labels, run.dataset.labels[indices])


def test_a_source_that_is_none_is_refused(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("def create_source(): return 5\n")
    config = make_config(tmp_path, data={"def_file": str(path), "params": {}})
    with pytest.raises(UserError, match=r"^data: .*own\.py makes 5, expected a data\.Source"):
        open_source(config)
