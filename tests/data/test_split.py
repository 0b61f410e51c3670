from dataclasses import fields

import numpy as np
import pytest

from data.images import open_images
from data.split import Split, make_split
from utils.errors import UserError


def equal(one: Split, other: Split) -> bool:
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        for field in fields(Split)
    )


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


def test_validation_never_takes_a_class_out_of_the_database(array_source):
    source = array_source(train=[6, 2], query=[3, 3], database=[9, 4])
    digests = open_images(source).digests
    with pytest.raises(UserError, match=r"all 4 .*'class 1'.*validation_per_class to at most 3"):
        make_split(source, validation_per_class=4, digests=digests)
    split = make_split(source, validation_per_class=3, digests=digests)
    assert source.class_counts(split.validation).tolist() == [3, 3]


def test_multi_label_validation_is_a_fifth_of_the_outside_images_at_most(array_source):
    source = array_source(True, train=[6] * 5, query=[2] * 5, database=[8] * 5)
    digests = open_images(source).digests
    assert len(make_split(source, digests=digests).validation) == 8
    assert len(make_split(source, validation_per_class=1, digests=digests).validation) == 5


def test_sizes_of_a_long_tail_are_left_aside_without_one(balanced):
    plain = make_split(balanced)
    assert equal(make_split(balanced, n_max=7, mu=0.5), plain)
    assert plain.mu is None and len(plain.train) + len(plain.validation) == 240


@pytest.mark.parametrize("name", ["seed", "validation_per_class", "queries_per_class"])
def test_negative_numbers_are_refused(array_source, name):
    with pytest.raises(UserError, match=f"{name} is -1; expected"):
        make_split(array_source(all=[40, 20]), **{name: -1})
