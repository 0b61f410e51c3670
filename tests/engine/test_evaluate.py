"""The figures of a run are those of its codes, and its validation never sees the queries."""

import numpy as np
import pytest
from sklearn.metrics import f1_score
from small_config import make_config

from engine.coding import Encoded, encode
from engine.evaluate import classification, validate
from engine.experiment import train_and_test
from engine.run import open_run
from retrieval.codes import load_codes, unpack
from utils.errors import UserError


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tested")
    config = make_config(folder, num_epochs=6)
    return folder, train_and_test(config)


def _average_precision(distances, relevant, orders=400):
    """Mean over random orders inside the ties, by sorting."""
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(orders):
        order = np.lexsort([rng.random(len(distances)), distances])
        hits = relevant[order]
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        scores.append(precision[hits].mean())
    return np.mean(scores)


def test_map_is_that_of_the_written_codes_by_a_plain_loop(tested):
    folder, metrics = tested
    codes = load_codes(folder / "codes.npz")
    query = unpack(codes.query_codes, codes.code_length).astype(int)
    database = unpack(codes.database_codes, codes.code_length).astype(int)
    distances = (codes.code_length - query @ database.T) // 2
    scores = [
        _average_precision(row, codes.database_labels == label)
        for row, label in zip(distances, codes.query_labels, strict=True)
    ]
    assert metrics["map"] == pytest.approx(np.mean(scores), abs=0.01)


def test_the_database_keeps_every_training_image_and_no_query(tested):
    folder, metrics = tested
    run = open_run(make_config(folder))
    split = run.dataset.split
    assert np.isin(split.train, split.database).all()
    assert not np.isin(split.query, split.database).any()
    assert metrics["counts"]["database"] == len(split.database)


def test_codes_are_the_signs_of_the_networks_output(tmp_path):
    run = open_run(make_config(tmp_path))
    indices = run.dataset.split.query[:5]
    encoded = encode(run, indices)
    run.model.eval()
    images, _ = next(run.dataset.batches([indices], run.augmentation))
    outputs = run.model(images)
    expected = np.where(outputs["codes"].detach().numpy() >= 0, 1, -1)
    assert np.array_equal(unpack(encoded.codes, 8), expected)
    np.testing.assert_allclose(encoded.logits, outputs["logits"].detach().numpy(), atol=1e-5)


def test_validation_uses_neither_queries_nor_itself(tmp_path):
    run = open_run(make_config(tmp_path))
    coded = []

    def spy(run, indices):
        coded.append(indices)
        return encode(run, indices)

    result = validate(run, {8: spy}).by_length[8]
    split = run.dataset.split
    assert not np.isin(np.concatenate(coded), split.query).any()
    assert (result.queries, result.database) == (
        len(split.validation),
        len(split.database) - len(split.validation),
    )


def test_accuracy_and_macro_f1_are_scikit_learns():
    labels = np.array([0, 0, 1, 2])
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 1]]
    found = classification(Encoded(np.zeros((4, 1), np.uint8), logits), labels)
    expected = f1_score(labels, [0, 1, 1, 1], average="macro")
    assert found == {"accuracy": 0.5, "macro_f1": pytest.approx(expected)}


def test_multi_label_data_trains_and_tests(tmp_path):
    config = make_config(
        tmp_path,
        imbalance_factor=None,
        data={
            "params": {"num_classes": 5, "images_per_class": 16, "multi_label": True},
        },
        criterions={"classification": {"def_file": "./loss/binary_cross_entropy.py"}},
    )
    metrics = train_and_test(config)
    assert 0 < metrics["map"] <= 1
    assert "accuracy" not in metrics


def test_data_that_leaves_nobody_to_validate_is_refused_before_training(tmp_path):
    data = {"params": {"num_classes": 5, "image_size": 8, "images_per_class": 6}}
    config = make_config(tmp_path / "run", imbalance_factor=None, data=data)
    with pytest.raises(UserError, match="no validation images"):
        train_and_test(config)
    assert not (tmp_path / "run").exists()
