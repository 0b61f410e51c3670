import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from data.features import write_features
from data.source import Source
from engine.config import check_config
from engine.experiment import check_data, train_and_test
from engine.options import NetworkOptions
from engine.run import open_run
from engine.shallow import RunFeatures, extract_features, fit, mean_and_deviation
from models.spectral_hashing import SpectralHashing
from retrieval.codes import binarize, pack
from utils.errors import UserError

CLASSES = 3


@pytest.fixture
def feature_file(tmp_path):
    """90 images in a file, of three far-apart classes of 12-dimensional features."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % CLASSES
    centres = rng.normal(5, 4, (CLASSES, 12))
    features = (centres[labels] + rng.normal(0, 1, (90, 12))).astype(np.float32)
    source = Source(
        name="blobs",
        class_names=["a", "b", "c"],
        image_names=[f"{i:02d}" for i in range(90)],
        labels=labels,
        subsets={"all": np.arange(90)},
        features=features,
    )
    write_features(tmp_path / "blobs.npz", source, features, {"network": "none"}, "float32")
    return tmp_path / "blobs.npz"


def make_config(path, hasher="spectral_hashing", code_length=6, standardize=True, **training):
    return check_config(
        {
            "training_opt": {
                "dataset": "Blobs",
                "method": "sh",
                "log_dir": str(path.parent / "run"),
                "code_length": code_length,
                "image_size": 8,
                "data_root": str(path.parent),
                "evaluation_batch_size": 7,
                "top_k": [5],
                "device": "cpu",
                **training,
            },
            "data": {
                "def_file": "./data/features.py",
                "params": {"file": path.name},
                "queries_per_class": 4,
                "validation_per_class": 2,
            },
            "networks": {},
            "engine": "shallow",
            "hasher": {"def_file": f"./models/{hasher}.py", "standardize": standardize},
        },
        "test_shallow.py",
    )


def test_standardising_takes_one_mean_and_one_deviation_over_the_database(feature_file):
    run = open_run(make_config(feature_file))
    features, split = run.dataset.source.features.astype(np.float64), run.dataset.split
    database = features[split.database]
    found = RunFeatures(run)
    scaled = (features - database.mean()) / database.std()
    for indices in (split.query, split.train, split.database[::-1].copy()):
        np.testing.assert_allclose(found.of(indices), scaled[indices], atol=1e-5)
    plain = RunFeatures(open_run(make_config(feature_file, standardize=False)))
    np.testing.assert_array_equal(plain.of(split.query), features[split.query].astype("f4"))


def test_the_codes_are_those_of_the_hasher_alone_for_each_length(feature_file):
    run = open_run(make_config(feature_file, code_length=[4, 9], standardize=False))
    features, split = run.dataset.source.features, run.dataset.split
    encoders = fit(run)
    assert list(encoders) == [4, 9]
    for length, encoder in encoders.items():
        alone = SpectralHashing(length).fit(features[split.train])
        for indices in (split.query, split.database):
            expected = pack(binarize(alone.encode(features[indices])))
            np.testing.assert_array_equal(encoder(run, indices).codes, expected)


def test_features_are_taken_once_for_all_code_lengths(feature_file, monkeypatch):
    asked = []
    take = extract_features
    monkeypatch.setattr(
        "engine.shallow.extract_features",
        lambda run, indices: asked.append(len(indices)) or take(run, indices),
    )
    run = open_run(make_config(feature_file, code_length=[4, 6, 9], standardize=False))
    encoders, split = fit(run), run.dataset.split
    for indices in (split.query, split.database):
        for encoder in encoders.values():
            encoder(run, indices)
    assert asked == [len(split.train), len(split.query), len(split.database)]


@pytest.mark.pictures
def test_a_run_on_features_reports_without_networks_or_pictures(feature_file):
    record = feature_file.parent / "records.csv"
    config = make_config(feature_file, "sdh", code_length=[4, 6])
    train_and_test(config, record=str(record))
    folder = feature_file.parent / "run"
    metrics = json.loads((folder / "metrics.json").read_text())
    for length, found in zip((4, 6), metrics["runs"], strict=True):
        assert found["code_length"] == length and found["map"] > 0.8  # the classes are far apart
        left = {path.name for path in (folder / f"{length}bits").iterdir()}
        assert {"report.html", "codes.npz", "metrics.json"} <= left
        assert "retrieval_grid.png" not in left
    rows = list(csv.DictReader(record.open()))
    assert [row["backbone"] for row in rows] == ["blobs", "blobs"]


def test_check_data_counts_features_and_finds_equal_rows_and_nan(feature_file, capsys):
    config = make_config(feature_file)
    assert check_data(config)
    assert "all: 90 images" in capsys.readouterr().out
    with np.load(feature_file) as file:
        arrays = dict(file)
    arrays["features"][7, 2] = np.nan
    np.savez(feature_file, **arrays)
    assert not check_data(config)
    assert "features of 07 are NaN or infinite" in capsys.readouterr().out


def test_the_same_features_among_queries_and_database_are_a_leak(feature_file):
    split = open_run(make_config(feature_file)).dataset.split
    with np.load(feature_file) as file:
        arrays = dict(file)
    arrays["features"][split.query[0]] = arrays["features"][split.train[0]]
    np.savez(feature_file, **arrays)
    with pytest.raises(UserError, match="1 queries are copies of training or database images"):
        open_run(make_config(feature_file))


def test_mean_and_deviation_are_numpys_and_equal_features_are_a_user_error():
    features = np.random.default_rng(1).normal(1000, 0.5, (50, 7)).astype(np.float32)
    mean, deviation = mean_and_deviation(features)
    assert mean == pytest.approx(features.astype(np.float64).mean())
    assert deviation == pytest.approx(features.astype(np.float64).std())
    with pytest.raises(UserError, match="are equal"):
        mean_and_deviation(np.ones((4, 3), np.float32))


def test_networks_may_be_left_out_for_a_shallow_method_only(feature_file):
    values = make_config(feature_file).to_dict() | {"engine": "minibatch", "hasher": None}
    with pytest.raises(UserError, match="networks is empty"):
        check_config(values, "x.py")


def test_networks_that_do_not_suit_features_are_a_user_error(feature_file):
    for network, said in (
        (NetworkOptions("./models/small_cnn.py"), "networks and data do not fit together"),
        (
            NetworkOptions("./models/flat_head.py", {"in_features": 12}),
            "the networks give dict, expected one row",
        ),
    ):
        config = replace(make_config(feature_file, code_length=4), networks={"network": network})
        with pytest.raises(UserError, match=said):
            train_and_test(config)


HASHER = """
class Hasher:
    def fit(self, X, y):
        raise ERROR
    def encode(self, X): ...
def create_model():
    return MADE
"""


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        ("None", "None", "own.py makes None, expected what can fit and encode"),
        ("Hasher()", "ValueError('two\\nlines')", "features: ValueError: two lines"),
        ("Hasher()", "MemoryError()", "features: MemoryError"),
    ],
)
def test_a_hasher_that_cannot_be_fitted_is_refused_in_a_line(feature_file, made, error, words):
    own = feature_file.parent / "own.py"
    own.write_text(HASHER.replace("ERROR", error.replace("\n", "\\n")).replace("MADE", made))
    config = make_config(feature_file)
    config.hasher.def_file = str(own)
    with pytest.raises(UserError, match=r"^hasher: ") as raised:
        fit(open_run(config))
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_hashers_own_refusal_names_the_section(feature_file):
    config = make_config(feature_file, "sdh")
    config.hasher.params = {"classifier_penalty": 0}
    with pytest.raises(UserError, match=r"^hasher: SDH: classifier_penalty is 0"):
        fit(open_run(config))
