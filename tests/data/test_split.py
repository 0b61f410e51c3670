import json
from dataclasses import fields, replace

import numpy as np
import pytest

from data.images import open_images
from data.split import (
    Split,
    digest,
    hold_out_classes,
    make_split,
    manifest,
    read_split,
    write_manifest,
)
from utils.errors import UserError


def equal(one: Split, other: Split) -> bool:
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        for field in fields(Split)
    )


@pytest.fixture
def balanced(array_source):
    return array_source(train=[40] * 6, test=[5] * 6)


def test_long_tail_has_the_sizes_of_its_ranks(balanced):
    split = make_split(balanced, imbalance_factor=10, seed=1)
    assert sorted(split.class_counts, reverse=True) == [40, 16, 9, 6, 5, 4]
    assert np.array_equal(balanced.class_counts(split.train), split.class_counts)
    assert split.database.tolist() == list(range(240))
    assert split.query.tolist() == list(range(240, 270))
    assert split.mu == pytest.approx(np.log(10) / np.log(6))
    for role in (split.train, split.validation, split.query, split.database):
        assert (np.diff(role) > 0).all()


def test_seed_draws_ranks_and_images(balanced):
    splits = [make_split(balanced, imbalance_factor=10, seed=seed) for seed in (0, 0, 1)]
    assert equal(splits[0], splits[1])
    assert not np.array_equal(splits[0].class_counts, splits[2].class_counts)
    same_rank = [split.train[balanced.labels[split.train] == 0][:4].tolist() for split in splits]
    assert same_rank[0] != same_rank[2]


def test_smaller_factors_keep_the_images_of_larger_ones(balanced):
    few = make_split(balanced, imbalance_factor=20, seed=4).train
    many = make_split(balanced, imbalance_factor=5, seed=4).train
    assert np.isin(few, many).all() and len(few) < len(many)


def test_one_setting_does_not_move_another(array_source):
    source = array_source(all=[60] * 4)
    base = make_split(source, imbalance_factor=4, queries_per_class=10, seed=2)
    other = make_split(
        source, imbalance_factor=4, queries_per_class=10, seed=2, validation_per_class=3
    )
    assert np.array_equal(base.train, other.train) and np.array_equal(base.query, other.query)
    assert np.isin(other.validation, base.validation).all()
    factor = make_split(source, imbalance_factor=2, queries_per_class=10, seed=2)
    assert np.array_equal(base.query, factor.query)


def test_given_training_set_is_used_as_it_is(balanced):
    split = make_split(balanced, validation_per_class=0)
    assert np.array_equal(split.train, split.database)
    assert split.imbalance_factor is None and len(split.validation) == 0


def test_drawn_queries_leave_the_pool(array_source):
    source = array_source(all=[200, 50, 4])
    split = make_split(source)
    assert source.class_counts(split.query).tolist() == [30, 10, 1]
    assert np.array_equal(np.union1d(split.query, split.database), np.arange(254))
    assert not np.isin(split.query, split.database).any()
    assert not np.isin(split.query, split.train).any()


def test_cifar10_protocol_from_joined_images(array_source):
    source = array_source(all=[60] * 10)
    split = make_split(source, imbalance_factor=1, n_max=5, queries_per_class=2)
    assert (len(split.query), len(split.train), len(split.database)) == (20, 50, 580)
    assert (split.class_counts == 5).all()


def test_validation_comes_from_outside_the_training_set(balanced):
    split = make_split(balanced, imbalance_factor=10, validation_per_class=3)
    assert np.isin(split.validation, split.database).all()
    assert not np.isin(split.validation, split.train).any()
    full = balanced.class_counts(split.train) == 40
    assert balanced.class_counts(split.validation).tolist() == [0 if own else 3 for own in full]
    assert full.sum() == 1


def test_validation_is_held_out_only_when_no_class_has_outside_images(array_source):
    source = array_source(train=[40, 20, 4, 1], test=[1] * 4)
    split = make_split(source, validation_per_class=5)
    assert source.class_counts(split.validation).tolist() == [5, 4, 0, 0]
    assert split.class_counts.tolist() == [40, 20, 4, 1]
    assert np.array_equal(np.union1d(split.train, split.validation), np.arange(65))
    assert len(split.train) == 56 and len(split.database) == 65


def test_validation_is_no_copy_of_a_training_image(array_source):
    source = array_source(train=[10, 10], test=[1, 1])
    source.arrays[0:10] = source.arrays[0]
    split = make_split(source, digests=open_images(source).digests)
    assert source.class_counts(split.validation).tolist() == [0, 2]


def test_val_subset_is_the_validation_set(array_source):
    source = array_source(train=[4, 4], test=[1, 1], val=[2, 3])
    split = make_split(source)
    assert split.validation.tolist() == source.subsets["val"].tolist()
    assert len(split.train) == 8


def test_released_layout_is_used_as_it_is_and_copies_are_found(array_source):
    source = array_source(train=[6, 2], query=[3, 3], database=[9, 9])
    source.arrays[14:20] = source.arrays[0:6]  # the first class's training images, copied
    source.arrays[23:25] = source.arrays[6:8]
    split = make_split(source, validation_per_class=20, digests=open_images(source).digests)
    for role, subset in (("train", "train"), ("query", "query"), ("database", "database")):
        assert np.array_equal(getattr(split, role), source.subsets[subset])
    assert split.validation.tolist() == [20, 21, 22, *range(25, 32)]
    with pytest.raises(ValueError, match="digests"):
        make_split(source)


def test_long_tail_of_a_source_with_a_database_is_drawn_from_it(array_source):
    source = array_source(train=[2, 2], query=[3, 3], database=[8, 8])
    split = make_split(source, imbalance_factor=4)
    assert sorted(split.class_counts) == [2, 8]
    assert np.isin(split.train, split.database).all()


def test_multi_label_draws_over_all_images(array_source):
    source = array_source(True, all=[40, 40])
    split = make_split(source, queries_per_class=5, validation_per_class=4)
    assert (len(split.query), len(split.validation), len(split.train)) == (10, 8, 62)
    assert np.array_equal(split.class_counts, source.labels[split.database].sum(0))
    with pytest.raises(UserError, match="multi-label"):
        make_split(source, imbalance_factor=10)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"imbalance_factor": 0.5}, "imbalance_factor is 0.5"),
        ({"n_max": 10}, "need an imbalance_factor"),
        ({"mu": 1.0}, "need an imbalance_factor"),
        ({"imbalance_factor": 1, "n_max": 30}, "'class 1' has 20 .* 30; set n_max to at most 20"),
        ({"queries_per_class": 5}, "has its own queries"),
    ],
)
def test_impossible_splits_are_refused(array_source, arguments, said):
    source = array_source(train=[40, 20], test=[1, 1])
    with pytest.raises(UserError, match=said):
        make_split(source, **arguments)


def test_too_many_queries_are_refused(array_source):
    with pytest.raises(UserError, match=r"20 queries .* 20 images of class 'class 1'"):
        make_split(array_source(all=[40, 20]), queries_per_class=20)


def test_held_out_classes_become_open_queries(array_source):
    source = array_source(train=[4, 5, 6, 7], test=[1, 2, 3, 4], open=[1])
    source = replace(source, labels=np.where(np.arange(33) == 32, -1, source.labels))
    reduced = hold_out_classes(source, ["class 2", "class 0"], seed=0)
    assert reduced.class_names == ["class 1", "class 3"]
    assert reduced.subsets["open"].tolist() == [22, 25, 26, 27, 32]
    assert reduced.class_counts(reduced.subsets["train"]).tolist() == [5, 7]
    assert reduced.class_counts(reduced.subsets["test"]).tolist() == [2, 4]
    for index in np.concatenate([reduced.subsets["train"], reduced.subsets["test"]]):
        old, new = source.labels[index], reduced.labels[index]
        assert source.class_names[old] == reduced.class_names[new]
    split = make_split(reduced)
    assert np.array_equal(split.open_query, reduced.subsets["open"])
    assert not reduced.membership()[split.open_query].any()
    unknown = np.flatnonzero(reduced.labels == -1)
    for role in (split.train, split.validation, split.query, split.database):
        assert not np.isin(role, unknown).any()


def test_held_out_classes_are_drawn_from_the_seed(array_source):
    source = array_source(all=[3] * 8)
    names = [tuple(hold_out_classes(source, 3, seed).class_names) for seed in (0, 0, 1, 2)]
    assert names[0] == names[1] and len(set(names)) > 1 and {len(n) for n in names} == {5}
    assert len(hold_out_classes(source, 3, 0).subsets["open"]) == 9
    assert hold_out_classes(source, 0, 0) is source


@pytest.mark.parametrize(
    ("classes", "said"), [(3, "3 open classes of 4"), (["x"], "'x' is not a class")]
)
def test_impossible_open_classes_are_refused(array_source, classes, said):
    with pytest.raises(UserError, match=said):
        hold_out_classes(array_source(train=[2] * 4, test=[1] * 4), classes, 0)
    with pytest.raises(UserError, match="only 'train'"):
        hold_out_classes(array_source(train=[2] * 4), 1, 0)
    with pytest.raises(UserError, match="multi-label"):
        hold_out_classes(array_source(True, train=[2] * 4), 1, 0)


def test_manifest_names_sizes_and_images(balanced):
    split = make_split(balanced, imbalance_factor=10, seed=1)
    value = manifest(balanced, split)
    assert [row["size"] for row in value["classes"]] == [40, 16, 9, 6, 5, 4]
    for row in value["classes"]:
        assert split.class_counts[balanced.class_names.index(row["name"])] == row["size"]
    assert value["train"] == [balanced.image_names[i] for i in split.train]
    assert value["query"] is None and value["roles"]["database"]["count"] == 240
    assert (value["n_max"], value["seed"], value["imbalance_factor"]) == (40, 1, 10)
    assert json.loads(json.dumps(value)) == value


def test_digest_changes_with_any_role_label_or_name_but_not_with_the_order(balanced):
    split = make_split(balanced, imbalance_factor=10)
    digests = {digest(manifest(balanced, split))}
    for role in ("train", "validation", "query", "database"):
        changed = replace(split, **{role: getattr(split, role)[1:]})
        digests.add(digest(manifest(balanced, changed)))
    labels = balanced.labels.copy()
    labels[-1] = 0
    digests.add(digest(manifest(replace(balanced, labels=labels), split)))
    names = [*balanced.image_names[:-1], "other"]
    digests.add(digest(manifest(replace(balanced, image_names=names), split)))
    assert len(digests) == 7

    order = np.random.default_rng(0).permutation(len(balanced))
    place = np.argsort(order)
    shuffled = replace(
        balanced,
        image_names=[balanced.image_names[i] for i in order],
        labels=balanced.labels[order],
    )
    roles = ("train", "validation", "query", "database")
    moved = replace(split, **{role: np.sort(place[getattr(split, role)]) for role in roles})
    assert digest(manifest(shuffled, moved)) == digest(manifest(balanced, split))


@pytest.mark.parametrize(("factor", "start"), [(None, "d5a253ddffde"), (4, "ee8f808b6c07")])
def test_splits_and_digests_stay_the_same_between_versions(array_source, factor, start):
    source = array_source(all=[9, 9, 9])
    split = make_split(source, imbalance_factor=factor, validation_per_class=2)
    assert digest(manifest(source, split))[:12] == start


@pytest.mark.parametrize("factor", [None, 4])
def test_written_splits_are_read_back_exactly(tmp_path, array_source, factor):
    sources = [array_source(train=[40] * 3, test=[5] * 3), array_source(all=[40] * 3)]
    sources.append(hold_out_classes(array_source(train=[20] * 4, test=[5] * 4), 1, 0))
    for source in sources:
        split = make_split(source, imbalance_factor=factor, seed=5)
        written = write_manifest(tmp_path / "split.json", source, split)
        assert written == json.loads((tmp_path / "split.json").read_text())
        assert equal(read_split(tmp_path / "split.json", source), split)


def test_splits_that_do_not_fit_are_refused(tmp_path, balanced):
    path = tmp_path / "split.json"
    split = make_split(balanced, imbalance_factor=10)
    value = write_manifest(path, balanced, split)
    renamed = replace(balanced, image_names=[f"x{i}" for i in range(len(balanced))])
    with pytest.raises(UserError, match=r"names \d+ images that made-up lacks, first 'image/"):
        read_split(path, renamed)
    smaller = replace(balanced, subsets=balanced.subsets | {"test": np.arange(240, 260)})
    with pytest.raises(UserError, match="does not fit dataset made-up"):
        read_split(path, smaller)
    path.write_text(json.dumps(value | {"train": value["train"][1:]}))
    with pytest.raises(UserError, match="does not fit"):
        read_split(path, balanced)
    for text in ("{", "{}", "[]"):
        path.write_text(text)
        with pytest.raises(UserError, match="is not a manifest"):
            read_split(path, balanced)
    with pytest.raises(UserError, match="is not a manifest"):
        read_split(tmp_path / "absent.json", balanced)
