"""The memory study: what it feeds the heads, the heads that it alone has, and its table."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from benchmarks import (
    memory_features,
    memory_study,
    memory_study_figures,
    memory_study_heads,
)
from benchmarks.memory_features import Features
from benchmarks.memory_study_heads import VARIANTS
from benchmarks.memory_study_samples import k_means_samples, random_samples
from benchmarks.rows import append_row

sys.path.append(str(Path(__file__).parents[1] / "engine"))
from small_config import make_config

SIZES, DIM, WIDTH, BITS = (6, 3, 2), 5, 7, 8


def made_up():
    """Features of three classes around three directions, and a head of random weights."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(len(SIZES), DIM, generator=generator) * 3

    def draw(labels):
        return centres[labels] + torch.randn(len(labels), DIM, generator=generator)

    labels = torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES))
    asked = torch.arange(len(SIZES)).repeat(5)
    torch.manual_seed(0)
    head = VARIANTS["direct"].head(DIM, WIDTH, BITS, len(SIZES)).state_dict()
    return Features(
        "made_up",
        draw(labels),
        labels,
        torch.stack([draw(labels)]),
        draw(asked),
        asked,
        draw(asked),
        asked,
        torch.tensor(SIZES),
        head,
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_every_head_is_trained_scored_and_the_same_for_the_same_seed(name):
    features = made_up()
    row, classes = memory_study.study(features, name, 3, 2)
    assert row == memory_study.study(features, name, 3, 2)[0]
    assert 0 < row["map"] <= 1
    assert (row["train_loss"] is None) == (not VARIANTS[name].trained)
    assert len(classes) == (0 if VARIANTS[name].samples is None else len(SIZES))


def test_heads_that_go_on_from_stage_1_give_its_codes_while_the_memory_is_empty():
    features = made_up()
    expected = memory_study.make_head(features, VARIANTS["stage_1"])(features.query)["codes"]
    for name in ("published_k3", "cosine", "cosine_selector_4", "cosine_whitened"):
        codes = memory_study.make_head(features, VARIANTS[name])(features.query)["codes"]
        assert torch.equal(codes, expected), name


def test_leave_one_out_attends_to_the_mean_of_the_other_images():
    features = made_up()
    variant = VARIANTS["cosine_leave_one_out"]
    head = memory_study.make_head(features, variant)
    memory_study.refresh(head, variant, features)
    rows = torch.tensor([0, 7, 10])
    head.begin_batch(rows)
    attention = head(features.train[rows])["attention"]
    centre = head.keys.mean(0)
    for i, row in enumerate(rows.tolist()):
        label = features.train_labels[row].item()
        scores = []
        for c in range(len(SIZES)):
            members = [
                features.train[j]
                for j in range(sum(SIZES))
                if features.train_labels[j] == c and not (c == label and j == row)
            ]
            key = sum(members) / len(members)
            scores.append(
                14 * functional.cosine_similarity(features.train[row] - centre, key - centre, dim=0)
            )
        torch.testing.assert_close(attention[i], torch.softmax(torch.stack(scores), 0))


def test_trained_keys_start_as_the_memorys():
    features = made_up()
    attentions = []
    for name in ("cosine_trained_keys", "cosine_selector_1"):
        head = memory_study.make_head(features, VARIANTS[name])
        memory_study.refresh(head, VARIANTS[name], features)
        attentions.append(head(features.query)["attention"])
    torch.testing.assert_close(*attentions)


def test_few_images_lean_on_similar_large_classes_and_many_hardly():
    torch.manual_seed(0)
    counts, centroids = torch.tensor([60, 2, 500]), torch.randn(3, 4)
    found = memory_study_heads.leaning(centroids, counts, 3.0, 14.0)
    centred = centroids - centroids.mean(0)
    for row, others in enumerate(([2], [0, 2], [0])):  # large ones, but not itself
        scores = [14 * functional.cosine_similarity(centred[row], centred[o], 0) for o in others]
        weights = torch.softmax(torch.stack(scores), 0)
        prior = sum(weight * centroids[o] for weight, o in zip(weights, others, strict=True))
        share = 3 / (3 + counts[row])
        torch.testing.assert_close(found[row], (1 - share) * centroids[row] + share * prior)
    assert torch.equal(memory_study_heads.leaning(centroids, counts, 0.0, 14.0), centroids)


@pytest.mark.parametrize("choose", [random_samples, k_means_samples])
def test_samples_are_of_their_class_and_no_more_than_it_has(choose):
    torch.manual_seed(0)
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0, 2, 0])
    chosen = choose(torch.randn(9, 4), labels, 4, 3)
    assert chosen.shape == (4, 3)
    for number, rows in enumerate(chosen):
        real = rows[rows >= 0]
        assert len(real) == min(3, int((labels == number).sum()))
        assert (labels[real] == number).all()


def test_k_means_finds_each_clump():
    clumps = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    features = clumps.repeat_interleave(5, 0) + 0.1 * torch.randn(15, 2)
    chosen = k_means_samples(features, torch.zeros(15, dtype=torch.long), 1, 3)
    assert set((chosen[0] // 5).tolist()) == {0, 1, 2}


def test_effective_rank_is_the_number_of_equal_directions():
    rows = torch.cat([torch.eye(6), -torch.eye(6)])[:, :4]
    rows = rows[rows.abs().sum(1) > 0]
    assert memory_study.effective_rank(rows) == pytest.approx(4)
    line = torch.arange(5.0)[:, None] * torch.ones(3)
    assert memory_study.effective_rank(line) == pytest.approx(1, abs=1e-3)


def test_the_summary_pairs_heads_with_the_direct_one_by_seed():
    maps = {"direct": {0: 0.3, 1: 0.4}, "cosine": {1: 0.46, 0: 0.34}, "stage_1": {0: 0.31}}
    rows = [
        {"features": "f", "head": head, "seed": str(seed), "map": str(value)}
        for head, found in maps.items()
        for seed, value in found.items()
    ]
    lines = memory_study.summarise(rows).splitlines()
    assert lines[3].startswith("| f | cosine | 2 | 0.4000 | +0.0500 | 1.3e-01")
    assert lines[4] == "| f | stage_1 | 1 | 0.3100 | +0.0100 | - |"


def test_the_command_records_each_row_once(tmp_path, capsys):
    features, record = made_up(), tmp_path / "record.csv"
    path = tmp_path / "made_up.npz"
    arrays = {name: getattr(features, name).numpy() for name in memory_features.ARRAYS}
    head = {f"{memory_features.HEAD}{k}": v.numpy() for k, v in features.head.items()}
    memory_features.write_features(path, arrays | head)
    arguments = [str(path), "--record", str(record), "--heads", "direct", "cosine"]
    arguments += ["--seeds", "0", "1", "--epochs", "1", "--summary"]
    assert memory_study.main(arguments) == memory_study.main(arguments) == 0
    with record.open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["head"], r["seed"]) for r in rows] == [
        *(("direct", "0"), ("cosine", "0"), ("direct", "1"), ("cosine", "1"))
    ]
    assert "| made_up | cosine | 2 |" in capsys.readouterr().out
    assert memory_study.main([str(record), "--record", str(record)]) == 2


def test_features_of_a_run_are_those_of_its_network_and_nobody_trained_on_the_database(tmp_path):
    from engine.experiment import train_and_test
    from engine.memory_report import open_finished

    train_and_test(make_config(tmp_path))
    out = tmp_path / "features.npz"
    command = [str(tmp_path), "--out", str(out), "--database", "20", "--copies", "2"]
    assert memory_features.main(command) == 0
    run, features = open_finished(tmp_path), memory_features.read_features(out)
    split, labels = run.dataset.split, np.asarray(run.dataset.source.labels)
    run.model.eval()
    images, _ = next(run.dataset.batches([split.validation], run.augmentation))
    torch.testing.assert_close(features.query, run.model[0](images), atol=2e-3, rtol=2e-3)
    assert features.query_labels.tolist() == labels[split.validation].tolist()
    assert features.augmented.shape == (2, len(split.train), features.train.shape[1])
    assert not torch.equal(features.augmented[0], features.augmented[1])
    assert len(features.database) == 20
    own = {tuple(row) for row in torch.cat([features.train, features.query]).tolist()}
    assert own.isdisjoint(tuple(row) for row in features.database.tolist())
    assert torch.equal(features.head["hash_layer.bias"], _half(run.model[1].hash_layer.bias))


def _half(values):
    return values.detach().half().float()


def test_the_pictures_are_drawn_from_the_records_alone(tmp_path):
    features, record, classes = made_up(), tmp_path / "rows.csv", tmp_path / "classes.csv"
    for name in ("direct", *memory_study_figures.SHOWN):
        row, used = memory_study.study(features, name, 0, 1)
        append_row(record, row)
        for each in used:
            append_row(classes, each)
    command = ["--record", str(record), "--classes", str(classes), "--out", str(tmp_path)]
    assert memory_study_figures.main([*command, "--features", "made_up"]) == 0
    for name in ("memory_gain.png", "memory_use.png"):
        assert Image.open(tmp_path / name).size[0] > 500
    rows = memory_study.read_rows(record)
    drawn = memory_study_figures.gain_figure(rows).axes[0].collections[0].get_offsets()
    maps = {r["head"]: float(r["map"]) for r in rows}
    gains = [maps[name] - maps["direct"] for name in memory_study_figures.SHOWN]
    np.testing.assert_allclose(drawn[:, 0], gains)
    assert memory_study_figures.main(["--record", str(tmp_path / "none.csv")]) == 2
