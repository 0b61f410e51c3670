import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.features import create_source, read_features, write_features
from data.images import open_images
from data.split import make_split
from utils.errors import UserError


@pytest.fixture
def drawn(array_source):
    def make(multi_label=False):
        source = array_source(multi_label, train=[6, 6, 6], test=[2, 2, 2], open=[1, 1, 1])
        features = np.random.default_rng(0).normal(3, 2, (len(source), 5)).astype(np.float32)
        return source, features

    return make


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    places=st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=8),
    kept=st.integers(0, 2**20),
)
def test_any_spoilt_file_is_read_or_refused_by_name(tmp_path, drawn, places, kept):
    path = tmp_path / "x.npz"
    write_features(path, *drawn(), {})
    content = bytearray(path.read_bytes())
    for place, value in places:
        content[place % len(content)] = value
    path.write_bytes(content[: kept % len(content)] if kept % 2 else content)
    try:
        open_images(create_source(tmp_path, "x.npz"))
    except UserError as error:
        assert "x.npz" in str(error) or "are NaN" in str(error)
        assert "\n" not in str(error)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_file_gives_back_all_that_was_written(tmp_path, drawn, multi_label):
    source, features = drawn(multi_label)
    write_features(tmp_path / "x.npz", source, features, {"network": "made up"}, "float32")
    found = create_source(tmp_path, "x.npz")
    np.testing.assert_array_equal(found.features, features)
    np.testing.assert_array_equal(found.labels, source.labels)
    assert found.labels.dtype == source.labels.dtype and found.features.dtype == np.float32
    for name in ("name", "image_names", "class_names"):
        assert getattr(found, name) == getattr(source, name)
    assert found.subsets.keys() == source.subsets.keys()
    for name, indices in source.subsets.items():
        np.testing.assert_array_equal(found.subsets[name], indices)
    assert found.provenance == {"network": "made up"}
    assert found.root is None and found.arrays is None


def test_half_precision_is_rounding_and_half_the_size(tmp_path, drawn):
    source, features = drawn()
    write_features(tmp_path / "half.npz", source, features, {})
    write_features(tmp_path / "full.npz", source, features, {}, "float32")
    rounded = read_features(tmp_path / "half.npz").features
    np.testing.assert_array_equal(rounded, features.astype(np.float16).astype(np.float32))
    half, full = ((tmp_path / f"{name}.npz").stat().st_size for name in ("half", "full"))
    assert full - half == features.size * 2


def test_the_split_of_the_features_is_that_of_the_images(tmp_path, drawn):
    source, features = drawn()
    write_features(tmp_path / "x.npz", source, features, {})
    found = create_source(tmp_path, "x.npz")
    splits = [make_split(each, validation_per_class=1, seed=3) for each in (source, found)]
    for role in ("train", "validation", "query", "database", "open_query"):
        np.testing.assert_array_equal(*(getattr(split, role) for split in splits))


def test_name_classes_and_join_are_the_users(tmp_path, drawn):
    source, features = drawn()
    write_features(tmp_path / "x.npz", source, features, {})
    found = create_source(tmp_path, "x.npz", name="mine", class_names=["u", "v", "w"], join=True)
    assert (found.name, found.class_names) == ("mine", ["u", "v", "w"])
    assert {name: len(ids) for name, ids in found.subsets.items()} == {"all": 24, "open": 3}
    with pytest.raises(UserError, match=r"class_names has 2 names, .* 3 classes"):
        create_source(tmp_path, "x.npz", class_names=["u", "v"])


def test_rows_come_by_index_and_equal_rows_have_equal_digests(drawn):
    source, features = drawn()
    features[4] = features[9]
    images = open_images(replace(source, arrays=None, features=features))
    order = [np.array([3, 0]), np.array([26])]
    batches = images.batches(order, None, training=False, seed=0, device="cpu")
    for wanted, (rows, indices) in zip(order, batches, strict=True):
        assert indices.tolist() == wanted.tolist()
        np.testing.assert_array_equal(rows.numpy(), features[wanted])
    digests = images.digests(np.arange(len(features)))
    assert digests[4] == digests[9] and len(set(digests)) == len(features) - 1


def test_a_source_of_features_has_no_pictures_and_one_row_an_image(drawn):
    source, features = drawn()
    with pytest.raises(ValueError, match="features, no pictures"):
        replace(source, arrays=None, features=features).read(0)
    with pytest.raises(ValueError, match="26 features for 27 images"):
        replace(source, arrays=None, features=features[1:])
    with pytest.raises(ValueError, match="one of them only"):
        replace(source, features=features)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_features_that_half_precision_cannot_hold_are_a_user_error(tmp_path, drawn, value):
    source, features = drawn()
    features[2, 3] = value
    with pytest.raises(UserError, match=r"too large for float16; .* float32"):
        write_features(tmp_path / "x.npz", source, features, {})
    assert not list(tmp_path.iterdir())


def test_files_that_are_none_of_ours_are_one_line(tmp_path, drawn):
    source, features = drawn()
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", features=features)
    np.savez(tmp_path / "code.npz", features=np.array([print], dtype=object))
    whole = tmp_path / "whole.npz"
    write_features(whole, source, features, {})
    (tmp_path / "half.npz").write_bytes(whole.read_bytes()[:900])
    (tmp_path / "x.txt").write_text("1 2 3")
    for file, said in {
        "text.npz": "is broken",
        "half.npz": "is broken",
        "other.npz": "lacks labels, image_names",
        "code.npz": "lacks labels",
        "x.txt": r"ends in \.npz, \.mat, \.t",
        "absent.npz": r"does not exist; make it with python -m engine\.features",
    }.items():
        with pytest.raises(UserError, match=said) as error:
            create_source(tmp_path, file)
        assert file in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"expected a name that ends in \.npz"):
        write_features(tmp_path / "x.pt", source, features, {})


def test_pickled_members_are_never_unpickled(tmp_path, drawn):
    source, features = drawn()
    path = tmp_path / "x.npz"
    write_features(path, source, features, {})
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "labels": np.array([print] * len(source), dtype=object)})
    with pytest.raises(UserError, match="is broken"):
        create_source(tmp_path, "x.npz")


def test_provenance_is_text_that_needs_no_pickle(tmp_path, drawn):
    source, features = drawn()
    write_features(tmp_path / "x.npz", source, features, {"params": {"arch": "lite0"}})
    with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
        assert json.loads(str(file["provenance"])) == {"params": {"arch": "lite0"}}
        assert file["subset_open"].tolist() == [24, 25, 26]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"subset_train": np.arange(40)}, "subset train"),
        ({"subset_train": np.array([-1, 2])}, "subset train"),
        ({"subset_train": np.array([0.5, 2])}, "subset train"),
        ({"labels": np.full(27, 3)}, r"labels .* 3 classes"),
        ({"labels": np.zeros(27)}, r"labels .* 3 classes"),
        ({"labels": np.zeros((27, 2), np.uint8)}, r"labels .* 3 classes"),
        ({"features": np.zeros(27)}, r"features \(27,\)"),
        ({"subset_train": None}, "no subset 'all' or 'train'"),
    ],
)
def test_arrays_of_ones_own_that_do_not_fit_are_one_line(tmp_path, drawn, changes, said):
    source, features = drawn()
    path = tmp_path / "x.npz"
    write_features(path, source, features, {})
    with np.load(path) as file:
        arrays = dict(file) | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(UserError, match=said) as error:
        create_source(tmp_path, "x.npz")
    assert "x.npz" in str(error.value) and "\n" not in str(error.value)


def test_a_bare_array_by_the_name_of_an_archive_is_one_line(tmp_path):
    with (tmp_path / "x.npz").open("wb") as file:
        np.save(file, np.zeros((3, 2)))
    with pytest.raises(UserError, match="is broken"):
        create_source(tmp_path, "x.npz")
