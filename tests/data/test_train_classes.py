import numpy as np
import pytest

from data.samplers import class_aware_batches
from data.split import make_split
from data.train_classes import keep_train_classes
from utils.errors import UserError


@pytest.fixture
def source(array_source):
    return array_source(all=[30, 40, 50, 60])


def test_other_classes_leave_training_and_validation_and_nothing_else(source):
    split = make_split(source, queries_per_class=5, validation_per_class=3)
    kept = keep_train_classes(source, split, 2)
    for role in ("train", "validation"):
        before = getattr(split, role)
        expected = [i for i in before if source.labels[i] in (0, 1)]
        assert getattr(kept, role).tolist() == expected and len(expected) < len(before)
    for role in ("query", "database", "open_query"):
        assert np.array_equal(getattr(kept, role), getattr(split, role))
    assert kept.class_counts.tolist() == [25, 35, 0, 0]
    assert kept.protocol == f"{split.protocol}; trained on 2 of 4 classes"


def test_names_and_their_number_say_the_same(source):
    split = make_split(source)
    first = keep_train_classes(source, split, 2)
    named = keep_train_classes(source, split, ["class 1", "class 0"])
    assert np.array_equal(first.train, named.train) and first.protocol == named.protocol


def test_nothing_changes_where_all_are_kept_or_were_left_out_before(source):
    split = make_split(source)
    assert keep_train_classes(source, split, 4) is split
    kept = keep_train_classes(source, split, 3)
    assert keep_train_classes(source, kept, 3) is kept


def test_class_aware_batches_pass_over_classes_without_images(source):
    kept = keep_train_classes(source, make_split(source), ["class 0", "class 3"])
    batches = class_aware_batches(kept.train, source.membership(), 10, seed=0, epoch=0)
    labels = source.labels[np.concatenate(batches)]
    assert np.bincount(labels, minlength=4).tolist() == [len(labels) // 2, 0, 0, len(labels) // 2]


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (0, "train_classes is 0; expected 1 to 4"),
        (5, "train_classes is 5; expected 1 to 4"),
        (["class 0", "cat"], "data.train_classes: 'cat' is not a class of made-up"),
        ([], ": no training image of made-up is of them"),
    ],
)
def test_classes_that_are_not_there_are_refused(source, classes, said):
    with pytest.raises(UserError, match=said):
        keep_train_classes(source, make_split(source), classes)


def test_multi_label_sources_are_refused(array_source):
    source = array_source(True, all=[30, 30])
    with pytest.raises(UserError, match="multi-label dataset made-up"):
        keep_train_classes(source, make_split(source), 1)
