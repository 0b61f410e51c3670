"""The report of a memory's use says what loops over images and rows say."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from small_config import make_config

from engine.experiment import train_and_test
from engine.memory import refresh_memory
from engine.memory_report import main, open_finished, report_memory, use_of_images
from engine.memory_use import class_means, memory_use
from engine.run import open_run
from models.meta_embedding_head import MetaEmbeddingHead

CLASSES, PER_CLASS, IMAGES, COSINE = 4, 3, 9, {"attention": "cosine", "selector": 1.0}


def head_outputs(seed=0):
    torch.manual_seed(seed)
    head = MetaEmbeddingHead(6, 7, 8, CLASSES, CLASSES * PER_CLASS)
    head.set_memory(torch.randn(CLASSES * PER_CLASS, 7) * 3)
    inputs = torch.randn(IMAGES, 6)
    outputs = {name: value.detach() for name, value in head(inputs).items()}
    head.set_memory(torch.zeros(CLASSES * PER_CLASS, 7))
    return outputs, head(inputs)["codes"].detach()


def test_every_measure_equals_a_loop():
    outputs, direct = head_outputs()
    membership = torch.rand(IMAGES, CLASSES, generator=torch.Generator().manual_seed(1)) < 0.4
    use = memory_use(outputs, direct, membership)
    for i in range(IMAGES):
        attention = outputs["attention"][i].tolist()
        own = sum(o for r, o in enumerate(attention) if membership[i, r // PER_CLASS])
        entropy = -sum(o * math.log(o) for o in attention) / math.log(len(attention))
        features, embeddings = outputs["features"][i].tolist(), outputs["embeddings"][i].tolist()
        added = math.sqrt(sum((b - a) ** 2 for a, b in zip(features, embeddings, strict=True)))
        length = math.sqrt(sum(a * a for a in features))
        bits = zip(outputs["codes"][i].tolist(), direct[i].tolist(), strict=True)
        assert use["own_attention"][i].item() == pytest.approx(own, abs=1e-6)
        assert use["entropy"][i].item() == pytest.approx(entropy, abs=1e-6)
        assert use["selector"][i].item() == pytest.approx(
            sum(abs(e) for e in outputs["selector"][i].tolist()) / 7, abs=1e-6
        )
        assert use["relative_norm"][i].item() == pytest.approx(added / length, rel=1e-5)
        assert use["flipped_bits"][i].item() == sum((a >= 0) != (b >= 0) for a, b in bits) / 8
    assert use["flipped_bits"].sum() > 0


def test_entropy_is_one_for_uniform_attention_and_zero_for_one_row():
    outputs, direct = head_outputs()
    outputs["attention"] = torch.full((IMAGES, 12), 1 / 12)
    outputs["attention"][0] = torch.eye(12)[5]
    entropy = memory_use(outputs, direct, torch.ones(IMAGES, CLASSES, dtype=bool))["entropy"]
    assert entropy[0] == 0
    np.testing.assert_allclose(entropy[1:], 1, atol=1e-6)


def test_class_means_equal_a_loop_and_are_nan_without_images():
    membership = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0]]).bool()
    means = class_means(torch.tensor([1.0, 3.0, 5.0]), membership)
    assert means[:2].tolist() == [2, 4]
    assert means[2].isnan()


def test_a_run_gets_a_picture_and_a_line_and_keeps_its_memory(tmp_path, capsys):
    train_and_test(make_config(tmp_path, "meta"))
    run = open_finished(tmp_path)
    before = run.model[-1].memory.clone()
    assert before.abs().sum() > 0
    use, membership = use_of_images(run, run.dataset.split.train)
    assert torch.equal(run.model[-1].memory, before)
    line = report_memory(tmp_path)
    own = class_means(use["own_attention"], membership).mean()
    assert f"attention to the own classes' rows: training images {own:.3f}" in line
    assert main([str(tmp_path)]) == 0
    assert line in capsys.readouterr().out
    assert Image.open(tmp_path / "memory.png").size == (1100, 620)


def test_a_run_without_a_memory_and_no_run_are_user_errors(tmp_path, capsys):
    train_and_test(make_config(tmp_path / "direct"))
    for folder, said in ((tmp_path / "direct", "without a memory"), (tmp_path, "no config.yaml")):
        assert main([str(folder)]) == 2
        *_, error = capsys.readouterr().err.splitlines()  # beside the log, if there is one
        assert error.startswith("error: ") and said in error


def test_keys_are_the_inputs_of_the_memory_rows(tmp_path):
    network = {"def_file": "./models/meta_embedding_head.py", "params": COSINE}
    run = open_run(make_config(tmp_path, "meta", networks={"hash_head": network}))
    refresh_memory(run)
    head = run.model[-1]
    # The direct feature of a sample's key is that sample's row; a centroid's is not.
    rows = head.memory.view(5, 3, -1)
    keys = torch.relu(head.feature_layer(head.keys)).view(5, 3, -1)
    torch.testing.assert_close(keys[:, 1:], rows[:, 1:])
    assert head.keys.abs().sum() > 0
    assert train_and_test(run.config)["method"] == "meta"
