"""Classes held out are never trained on or searched; their query images ask as unknown."""

from dataclasses import replace

import numpy as np
import pytest

from data.open_classes import hold_out_classes
from data.split import make_split
from utils.errors import UserError


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
    ("classes", "said"),
    [(3, "3 open classes of 4"), (["x"], "'x' is not a class"), (-1, "open_classes is -1")],
)
def test_impossible_open_classes_are_refused(array_source, classes, said):
    with pytest.raises(UserError, match=said):
        hold_out_classes(array_source(train=[2] * 4, test=[1] * 4), classes, 0)
    with pytest.raises(UserError, match="seed is -1"):
        hold_out_classes(array_source(train=[2] * 4, test=[1] * 4), 1, -1)
    with pytest.raises(UserError, match="only 'train'"):
        hold_out_classes(array_source(train=[2] * 4), 1, 0)
    with pytest.raises(UserError, match="multi-label"):
        hold_out_classes(array_source(True, train=[2] * 4), 1, 0)
