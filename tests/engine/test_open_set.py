"""Open-set queries are rejected by distance, at a threshold that no query has set."""

import numpy as np
import pytest
from small_config import make_config

from engine.coding import Encoded, encode
from engine.experiment import test_only as run_test_only
from engine.experiment import train_and_test
from engine.open_set import evaluate_open_set, f_measure
from engine.run import open_run
from retrieval.codes import pack
from utils.errors import UserError


def test_f_measure_counts_as_oltrs():
    labels = np.array([0, 0, 1, 2, -1, -1, -1])
    predicted = np.array([0, 1, 1, -1, -1, 0, 2])
    # 2 right, 2 known wrong (one rejected), 2 unknown accepted
    assert f_measure(predicted, labels) == pytest.approx(2 * 2 / (2 * 2 + 2 + 2))
    assert f_measure(np.array([-1]), np.array([0])) == 0


@pytest.fixture
def run(tmp_path):
    config = make_config(tmp_path / "run", data={"open_classes": 1}, code_length=16)
    return open_run(config)


def test_unknown_classes_are_never_trained_on(run):
    split, labels = run.dataset.split, run.dataset.source.labels
    assert run.dataset.num_classes == 4
    assert len(split.open_query) == 16
    assert (labels[split.open_query] == -1).all()
    for role in (split.train, split.validation, split.query, split.database):
        assert (labels[role] >= 0).all()


def test_far_codes_are_unknown_and_near_ones_known(run):
    """Codes made so that known images have their class's code and unknown ones its complement."""
    rng = np.random.default_rng(0)
    class_codes = rng.choice([-1, 1], (4, 16))
    class_codes[:, 0] = 1
    labels = run.dataset.source.labels

    def encoder(run, indices):
        codes = np.where(labels[indices, None] >= 0, class_codes[labels[indices]], -class_codes[0])
        logits = np.eye(5, dtype=np.float32)[labels[indices]][:, :4]
        return Encoded(pack(codes), logits)

    split = run.dataset.split
    found = evaluate_open_set(run, encoder, encoder(run, split.query), encoder(run, split.database))
    assert found == {
        "auroc": 1.0,
        "f_measure": 1.0,
        "threshold": 0.0,
        "known_accepted": 1.0,
        "unknown_rejected": 1.0,
    }


def test_the_threshold_comes_from_validation_queries_alone(run):
    split = run.dataset.split
    query, database = encode(run, split.query), encode(run, split.database)
    shuffled = Encoded(query.codes[::-1].copy(), query.logits)
    first = evaluate_open_set(run, encode, query, database)
    second = evaluate_open_set(run, encode, shuffled, database)
    assert first["threshold"] == second["threshold"]


def test_the_command_tests_a_trained_run_with_open_queries(tmp_path):
    config = make_config(tmp_path, data={"open_classes": ["class_2"]}, num_epochs=4)
    train_and_test(config)
    metrics = run_test_only(config, open_set=True)
    assert 0 <= metrics["open_set"]["auroc"] <= 1


def test_data_without_unknown_classes_says_how_to_get_some(tmp_path):
    config = make_config(tmp_path / "run")
    train_and_test(config)
    with pytest.raises(UserError, match=r"no open-set queries.*data\.open_classes"):
        run_test_only(config, open_set=True)
