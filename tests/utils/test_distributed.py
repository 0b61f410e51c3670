"""What two processes know together equals what one knows alone."""

import numpy as np
import pytest
import torch
from torch import nn

from engine.launch import run_processes
from retrieval.metrics import evaluate
from utils import distributed

ROWS = torch.arange(14.0).view(7, 2)


def _problem():
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 2, (count, 16)) * 2 - 1 for count in (7, 40)]
    return *codes, rng.integers(0, 3, 7), rng.integers(0, 3, 40)


def _evaluate(shared, queries=7):
    codes, database, labels, database_labels = _problem()
    sides = codes[:queries], database, labels[:queries], database_labels
    shots = np.array([200, 50, 5])
    return evaluate(*sides, top_k=(5,), train_class_counts=shots, shared=shared)


def _rounded(value):
    """Sums over queries are added in another order."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 12) if isinstance(value, float) else value


def _work(folder):
    with distributed.joined(torch.device("cpu")):
        rank = distributed.rank()
        norm = nn.BatchNorm1d(2)
        norm.running_mean += rank
        distributed.average_statistics(norm)
        order = []
        with distributed.main_first():
            order = sorted(path.name for path in folder.glob("was_*"))
            (folder / f"was_{rank}").touch()
        found = {
            "gathered": distributed.gather(ROWS[distributed.share(7)], 7),
            "gathered_of_one": distributed.gather(ROWS[distributed.share(1)], 1),
            "sum": distributed.sum_over_processes(torch.tensor([rank + 1.0])),
            "least": distributed.least_over_processes(torch.tensor([rank, -rank])),
            "largest": distributed.largest([rank, -rank]),
            "objects": distributed.gather_objects({"rank": rank, "rows": ROWS[rank]}),
            "from_main": distributed.send_from_main(torch.tensor([rank + 1.0])),
            "mean": norm.running_mean,
            "batches_seen": norm.num_batches_tracked,
            "share": distributed.share_of_batches([np.arange(6), np.arange(3)]),
            "main": distributed.is_main(),
            "order": order,
            "evaluation": _evaluate(shared=True),
            "evaluation_of_one_query": _evaluate(shared=True, queries=1),
        }
        torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    run_processes(2, _work, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_shares_gathered_are_the_whole_in_order(found):
    for each in found:
        assert torch.equal(each["gathered"], ROWS)
        assert torch.equal(each["gathered_of_one"], ROWS[:1])


def test_sums_and_broadcasts_reach_every_process(found):
    for each in found:
        assert each["sum"].item() == 3
        assert each["from_main"].item() == 1
        assert each["least"].tolist() == [0, -1]
        assert each["largest"] == [1, 0]
        assert [one["rank"] for one in each["objects"]] == [0, 1]
        assert torch.equal(each["objects"][1]["rows"], ROWS[1])


def test_batch_statistics_are_averaged_and_counters_kept(found):
    for each in found:
        assert each["mean"].tolist() == [0.5, 0.5]
        assert each["batches_seen"] == 0


def test_every_image_of_a_batch_is_some_processs_and_parts_are_equal(found):
    whole, odd = zip(*(each["share"] for each in found), strict=True)
    assert sorted(np.concatenate(whole)) == list(range(6))
    assert sorted(np.concatenate(odd)) == [0, 0, 1, 2]
    assert len(odd[0]) == len(odd[1])


def test_rank_0_is_main_and_goes_first(found):
    assert [each["main"] for each in found] == [True, False]
    assert [each["order"] for each in found] == [[], ["was_0"]]


@pytest.mark.parametrize(("name", "queries"), [("evaluation", 7), ("evaluation_of_one_query", 1)])
def test_a_shared_evaluation_is_that_of_one_process(found, name, queries):
    alone = _evaluate(shared=False, queries=queries)
    for each in found:
        np.testing.assert_array_equal(each[name].ap_per_query, alone.ap_per_query)
        assert _rounded(each[name].to_dict()) == _rounded(alone.to_dict())


def test_a_lone_process_has_everything():
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.share(7) == slice(0, 7)
    assert distributed.gather(ROWS, 7) is ROWS
    assert distributed.largest([3, 1]) == [3, 1]
    assert distributed.gather_objects("own") == ["own"]
    assert distributed.least_over_processes(ROWS) is ROWS
    assert distributed.sum_over_processes(ROWS) is ROWS
    batches = [np.arange(3), np.arange(1)]
    for one, other in zip(distributed.share_of_batches(batches), batches, strict=True):
        np.testing.assert_array_equal(one, other)
