import numpy as np
import pytest

from data.samplers import class_aware_batches, evaluation_batches, uniform_batches


@pytest.mark.parametrize(
    ("count", "batch_size", "lengths"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 5]), (8, 4, [4, 4]), (1, 4, [1]), (0, 4, []), (3, 1, [1, 2])],
)
def test_uniform_batches_hold_each_image_once(count, batch_size, lengths):
    indices = np.arange(count) * 3
    batches = uniform_batches(indices, batch_size, seed=1, epoch=2)
    assert [len(batch) for batch in batches] == lengths
    assert sorted(np.concatenate([*batches, []])) == indices.tolist()


def test_order_depends_on_seed_and_epoch_alone():
    indices = np.arange(50)
    member = np.arange(50)[:, None] % 5 == np.arange(5)

    def orders(seed, epoch):
        return (
            np.concatenate(uniform_batches(indices, 8, seed, epoch)).tolist(),
            np.concatenate(class_aware_batches(indices, member, 8, seed, epoch)).tolist(),
        )

    first = orders(0, 0)
    np.random.random()  # noqa: NPY002 - global randomness plays no part
    assert orders(0, 0) == first
    for other in (orders(0, 1), orders(1, 0)):
        assert other[0] != first[0] and other[1] != first[1]


def test_class_aware_rounds_hold_every_class_once():
    labels = np.repeat([0, 1, 2, 3], [40, 10, 3, 0])
    member = labels[:, None] == np.arange(4)
    indices = np.flatnonzero(np.arange(53) != 7)
    batches = class_aware_batches(indices, member, 6, seed=0, epoch=0)
    assert [len(batch) for batch in batches] == [6] * 9
    sequence = np.concatenate(batches)
    assert 7 not in sequence
    rounds = labels[sequence].reshape(-1, 3)
    assert (np.sort(rounds, axis=1) == [0, 1, 2]).all()
    assert len(np.unique(rounds, axis=0)) > 1


def test_class_aware_uses_a_class_up_before_it_repeats():
    labels = np.repeat([0, 1], [30, 4])
    sequence = np.concatenate(
        class_aware_batches(np.arange(34), labels[:, None] == np.arange(2), 34, 0, 0)
    )
    few = sequence[labels[sequence] == 1]
    for start in range(0, len(few) - 3, 4):
        assert sorted(few[start : start + 4]) == [30, 31, 32, 33]
    many = sequence[labels[sequence] == 0]
    assert len(set(many)) == len(many) == 17


def test_class_aware_takes_multi_label_images_through_any_label():
    member = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]], dtype=bool)
    sequence = np.concatenate(class_aware_batches(np.arange(3), member, 3, 0, 0))
    assert len(sequence) == 3 and set(sequence) <= {0, 1}
    assert class_aware_batches(np.arange(0), member, 3, 0, 0) == []


def test_evaluation_batches_keep_the_order():
    batches = evaluation_batches(np.array([5, 3, 9, 1, 2]), 2)
    assert [batch.tolist() for batch in batches] == [[5, 3], [9, 1], [2]]


def test_a_last_batch_too_small_for_several_processes_joins_the_one_before():
    batches = uniform_batches(np.arange(28), 13, seed=0, epoch=0, least=4)
    assert [len(batch) for batch in batches] == [13, 15]
    assert sorted(np.concatenate(batches)) == list(range(28))
    assert [len(b) for b in uniform_batches(np.arange(3), 13, seed=0, epoch=0, least=4)] == [3]
