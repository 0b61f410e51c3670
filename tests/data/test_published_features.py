import pickle

import numpy as np
import pytest
import scipy.io
import torch
from torch import nn

import utils.matlab_file
from data.features import create_source
from data.images import open_images
from data.split import make_split
from utils.errors import UserError

RNG = np.random.default_rng(0)
TRAIN, TEST = RNG.normal(size=(12, 4)), RNG.normal(size=(6, 4))


@pytest.fixture(autouse=True)
def no_trial(monkeypatch):
    """A trial of every file in a process of its own would take a second a test."""
    monkeypatch.setattr(utils.matlab_file, "try_reading", lambda path: None)


def _matlab(folder, **changes):
    variables = {
        "traindata": TRAIN,
        "traingnd": np.arange(12)[:, None] % 3 + 1.0,  # MATLAB counts from 1, in doubles
        "testdata": TEST,
        "testgnd": np.arange(6)[:, None] % 3 + 1.0,
    }
    kept = {key: value for key, value in (variables | changes).items() if value is not None}
    scipy.io.savemat(folder / "x.mat", kept)
    return create_source(folder, "x.mat")


def _tensors(folder, targets, **changes):
    """Training rows are database rows too, as published files have it."""
    rows = torch.from_numpy(RNG.normal(size=(20, 4))).float()
    value = {
        "train_features": rows[6:12],
        "train_targets": targets[6:12],
        "query_features": rows[:6],
        "query_targets": targets[:6],
        "retrieval_features": rows[6:],
        "retrieval_targets": targets[6:],
    }
    torch.save(value | changes, folder / "x.t")
    return rows, create_source(folder, "x.t")


@pytest.mark.parametrize("transposed", [False, True])
def test_matlab_rows_are_train_then_test_and_classes_count_from_zero(tmp_path, transposed):
    row = np.arange(12)[None] % 3 + 1 if transposed else np.arange(12)[:, None] % 3 + 1
    source = _matlab(tmp_path, traingnd=row.astype(np.uint8))
    np.testing.assert_array_equal(source.features, np.concatenate([TRAIN, TEST]).astype("f4"))
    assert source.labels.tolist() == [0, 1, 2] * 6
    assert source.class_names == ["1", "2", "3"]
    assert source.subsets["train"].tolist() == list(range(12))
    assert source.subsets["test"].tolist() == list(range(12, 18))
    split = make_split(source, validation_per_class=1)
    assert (len(split.query), len(split.database), len(split.train)) == (6, 12, 12)


def test_matlab_labels_may_be_several_an_image(tmp_path):
    several = (RNG.random((18, 3)) < 0.5).astype(np.uint8)
    source = _matlab(tmp_path, traingnd=several[:12], testgnd=several[12:])
    np.testing.assert_array_equal(source.labels, several)


def test_one_hot_targets_are_class_indices_and_the_publishers_roles_stay(tmp_path):
    labels = torch.arange(20) % 3
    rows, source = _tensors(tmp_path, torch.eye(3)[labels])
    np.testing.assert_array_equal(source.features, torch.cat([rows[6:12], rows[:6], rows[6:]]))
    expected = torch.cat([labels[6:12], labels[:6], labels[6:]])
    assert source.labels.tolist() == expected.tolist()
    assert {name: len(ids) for name, ids in source.subsets.items()} == {
        "train": 6,
        "query": 6,
        "database": 14,
    }


def test_no_validation_query_is_a_copy_of_a_training_row(tmp_path):
    _, source = _tensors(tmp_path, torch.eye(3)[torch.arange(20) % 3])
    split = make_split(source, validation_per_class=2, digests=open_images(source).digests)
    assert [len(split.train), len(split.query), len(split.database)] == [6, 6, 14]
    trained = {row.tobytes() for row in source.features[split.train]}
    assert len(split.validation) == 6 and set(split.validation) <= set(split.database)
    assert not {row.tobytes() for row in source.features[split.validation]} & trained


def test_several_or_no_labels_an_image_stay_multi_hot(tmp_path):
    targets = (torch.rand(20, 3, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    _, source = _tensors(tmp_path, targets)
    expected = torch.cat([targets[6:12], targets[:6], targets[6:]])
    np.testing.assert_array_equal(source.labels, expected.numpy())
    assert source.labels.dtype == np.uint8 and source.multi_label


def test_a_file_that_would_run_code_is_refused_in_a_line(tmp_path):
    class Attack:
        def __reduce__(self):
            return print, ("this must not be printed",)

    torch.save({"train_features": Attack()}, tmp_path / "new.t")
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"train_features": Attack()}, protocol=2))
    for file in ("new.t", "old.pt"):
        with pytest.raises(UserError, match="could run code, so it is not loaded") as error:
            create_source(tmp_path, file)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"testgnd": None}, "lacks testgnd"),
        ({"testdata": TEST[:, :3]}, r"widths differ .* traindata \(12, 4\), .*, testdata \(6, 3\)"),
        ({"traindata": TRAIN[:5]}, r"traindata \(5, 4\) and traingnd \(12, 1\) do not fit"),
        ({"traingnd": RNG.random((12, 2)), "testgnd": np.eye(2)[[0] * 6]}, "must be 0 and 1"),
        ({"traingnd": "labels"}, "do not fit; expected numbers"),
    ],
)
def test_matlab_files_that_do_not_fit_are_one_line(tmp_path, changes, said):
    with pytest.raises(UserError, match=said) as error:
        _matlab(tmp_path, **changes)
    assert "\n" not in str(error.value)


def test_broken_files_are_one_line(tmp_path):
    _matlab(tmp_path)
    scipy.io.savemat(tmp_path / "packed.mat", {"traindata": TRAIN}, do_compression=True)
    packed = bytearray((tmp_path / "packed.mat").read_bytes())
    packed[160:220] = bytes(60)
    (tmp_path / "packed.mat").write_bytes(packed)
    (tmp_path / "x.mat").write_bytes(b"no such thing" * 20)
    (tmp_path / "empty.mat").write_bytes(b"")
    (tmp_path / "x.t").write_bytes(b"")
    (tmp_path / "text.t").write_bytes(b"hello " * 20)
    torch.save([torch.ones(2)], tmp_path / "list.t")
    for file, said in {
        "packed.mat": "cannot be read",
        "x.mat": "cannot be read",
        "empty.mat": "cannot be read",
        "x.t": "cannot be read",
        "text.t": "cannot be read",
        "list.t": "a list",
    }.items():
        with pytest.raises(UserError, match=said) as error:
            create_source(tmp_path, file)
        assert "\n" not in str(error.value)


def test_tensors_that_numpy_does_not_take_are_read(tmp_path):
    targets = torch.eye(3)[torch.arange(20) % 3]
    part = torch.arange(24.0).reshape(6, 4)
    changes = {"train_features": nn.Parameter(part), "query_features": part.bfloat16()}
    _, source = _tensors(tmp_path, targets, **changes)
    np.testing.assert_array_equal(source.features[:12], torch.cat([part, part]))


def test_tables_that_are_no_tensors_are_one_line(tmp_path):
    for wrong in ([[1.0], [2.0, 3.0]], {"a": 1}, torch.eye(4).to_sparse()):
        with pytest.raises(UserError, match="train_features") as error:
            _tensors(tmp_path, torch.eye(3)[torch.arange(20) % 3], train_features=wrong)
        assert "\n" not in str(error.value)
