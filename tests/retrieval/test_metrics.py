"""Every metric equals its definition, whatever the tie rule, the labels and the code length."""

import itertools
import json

import numpy as np
import plain_metrics
import pytest
import torch
from sklearn.metrics import average_precision_score

from retrieval.codes import pack
from retrieval.metrics import evaluate, mean_average_precision
from retrieval.ties import harmonic_difference
from utils.errors import UserError

FIELDS = {
    "ap_found": "map_at_k",
    "ap_min": "map_at_k_min",
    "precision": "precision_at",
    "recall": "recall_at",
    "ndcg": "ndcg_at",
}


@pytest.mark.parametrize("ties", ["optimistic", "pessimistic", "index"])
@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("bits", [1, 3, 16, 65, 256])
def test_fixed_orders_equal_a_loop(make_case, bits, multi, ties):
    query, database, query_labels, database_labels = case = make_case(bits=bits, multi=multi)
    found = evaluate(*case, ties=ties, top_k=(1, 7, 39, 100))
    distance = plain_metrics.distances(query, database)
    grade = plain_metrics.grades(query_labels, database_labels)
    for k in (1, 7, 39, 100):
        plain = plain_metrics.mean_scores(distance, grade, k, ties)
        for name, field in FIELDS.items():
            assert getattr(found, field)[k] == pytest.approx(plain[name], abs=1e-12), (name, k)
    assert found.map == pytest.approx(plain["ap_min"], abs=1e-12)


@pytest.mark.parametrize("multi", [False, True])
def test_expected_is_the_mean_over_all_orders(make_case, multi):
    # Six items at few distances: all 720 orders can be walked.
    for seed in range(6):
        query, database, query_labels, database_labels = case = make_case(
            queries=2, database=6, bits=1 + seed % 3, classes=3, multi=multi, seed=seed
        )
        found = evaluate(*case, top_k=(1, 2, 3, 4, 6))
        distance = plain_metrics.distances(query, database)
        grade = plain_metrics.grades(query_labels, database_labels)
        for k in (1, 2, 3, 4, 6):
            rows = [
                plain_metrics.score_ranking(g[np.lexsort((order, d))], k)
                for d, g in zip(distance, grade, strict=True)
                for order in itertools.permutations(range(6))
            ]
            for name, field in FIELDS.items():
                mean = np.mean([row[name] for row in rows])
                assert getattr(found, field)[k] == pytest.approx(mean, abs=1e-12), (name, k)


@pytest.mark.parametrize("multi", [False, True])
def test_expected_agrees_with_random_orders(make_case, multi):
    query, database, query_labels, database_labels = case = make_case(
        queries=3, bits=4, multi=multi, seed=3
    )
    found = evaluate(*case, top_k=(5, 20))
    distance = plain_metrics.distances(query, database)
    grade = plain_metrics.grades(query_labels, database_labels)
    for k in (5, 20):
        drawn = plain_metrics.mean_scores(distance, grade, k, "expected", draws=3000)
        for name, field in FIELDS.items():
            assert getattr(found, field)[k] == pytest.approx(drawn[name], abs=0.01), (name, k)


def test_without_ties_it_is_scikit_learns_average_precision():
    generator = np.random.default_rng(1)
    bits = 60
    query = np.ones((1, bits), np.int8)
    flips = generator.permutation(bits + 1)  # every distance once: no ties
    database = np.where(np.arange(bits) < flips[:, None], -1, 1)
    labels = generator.integers(0, 2, bits + 1)
    score = average_precision_score(labels, -flips)
    for ties in ("expected", "optimistic", "pessimistic", "index"):
        ours = mean_average_precision(query, database, np.array([1]), labels, ties=ties)
        assert ours == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize("kind", ["signs", "packed", "tensor", "packed tensor", "float"])
def test_every_form_of_input_scores_the_same(make_case, kind):
    query, database, query_labels, database_labels = make_case(bits=20)
    plain = mean_average_precision(query, database, query_labels, database_labels)
    change = {
        "signs": np.asarray,
        "packed": pack,
        "tensor": torch.from_numpy,
        "packed tensor": lambda x: torch.from_numpy(pack(x)),
        "float": lambda x: x.astype(np.float32),
    }[kind]
    length = 20 if "packed" in kind else None
    again = mean_average_precision(
        change(query), change(database), query_labels, database_labels, code_length=length
    )
    assert again == plain
    hot = [np.eye(4)[labels] for labels in (query_labels, database_labels)]
    assert mean_average_precision(query, database, *hot) == plain


def test_edge_cases_are_numbers():
    one = np.ones((1, 3), np.int8)
    assert mean_average_precision(one, -one, np.array([0]), np.array([0])) == 1
    assert mean_average_precision(one, -one, np.array([0]), np.array([1])) == 0
    lonely = evaluate(one, one, np.zeros((1, 2)), np.ones((1, 2)))
    assert (lonely.map, lonely.queries_without_relevant) == (0, 1)
    equal = np.ones((4, 3), np.int8)
    labels = np.array([0, 0, 1, 1])
    # One tie of four, two relevant: the mean over the six ways to place them.
    ways = [(1 / a + 2 / b) / 2 for a, b in itertools.combinations(range(1, 5), 2)]
    same = mean_average_precision(equal[:1], equal, labels[:1], labels)
    assert same == pytest.approx(np.mean(ways))
    assert json.dumps(lonely.to_dict(), allow_nan=False)


def test_groups_and_classes_average_the_right_queries(make_case):
    query, database, query_labels, database_labels = make_case(queries=30, classes=5)
    shots = [101, 100, 20, 19, 500, 7]
    found = evaluate(query, database, query_labels, database_labels, train_class_counts=shots)
    ap = found.ap_per_query
    members = {"many": [0, 4], "medium": [1, 2], "few": [3]}
    for name, classes in members.items():
        expected = ap[np.isin(query_labels, classes)].mean()
        assert found.groups[name] == pytest.approx(expected)
    for index, value in enumerate(found.map_per_class):
        assert value == pytest.approx(ap[query_labels == index].mean())
    assert found.map_macro == pytest.approx(np.mean(found.map_per_class))
    assert found.map == pytest.approx(ap.mean())
    rich = evaluate(query, database, query_labels, database_labels, train_class_counts=[999] * 5)
    assert rich.groups["few"] is None
    assert set(evaluate(*make_case()).groups.values()) == {None}
    with pytest.raises(UserError, match="lists 2 classes"):
        evaluate(query, database, query_labels, database_labels, train_class_counts=[1, 2])


def test_a_query_of_several_classes_counts_in_each(make_case):
    query, database, query_labels, database_labels = make_case(queries=20, multi=True)
    shots = [500, 500, 50, 5]
    found = evaluate(query, database, query_labels, database_labels, train_class_counts=shots)
    ap = found.ap_per_query
    for index, value in enumerate(found.map_per_class):
        assert value == pytest.approx(ap[query_labels[:, index] == 1].mean())
    many = np.concatenate([ap[query_labels[:, c] == 1] for c in (0, 1)]).mean()
    assert found.groups["many"] == pytest.approx(many)


def test_curves_equal_a_loop(make_case):
    query, database, query_labels, database_labels = case = make_case(bits=6)
    found = evaluate(*case, ties="index", radius=2)
    distance = plain_metrics.distances(query, database)
    hit = plain_metrics.grades(query_labels, database_labels) > 0
    for radius in range(7):
        inside = distance <= radius
        hits = (inside & hit).sum(1)
        precision = [h / n if n else 0 for h, n in zip(hits, inside.sum(1), strict=True)]
        assert found.radius_precision[radius] == pytest.approx(np.mean(precision))
        assert found.radius_recall[radius] == pytest.approx(np.mean(hits / hit.sum(1)))
        assert found.radius_empty[radius] == pytest.approx(np.mean(inside.sum(1) == 0), rel=1e-12)
        assert found.relevant_distances[radius] == ((distance == radius) & hit).sum()
        assert found.irrelevant_distances[radius] == ((distance == radius) & ~hit).sum()
    assert found.precision_within_radius == found.radius_precision[2]
    assert found.empty_within_radius == found.radius_empty[2]
    order = np.argsort(distance, axis=1, kind="stable")
    ranked = np.take_along_axis(hit, order, 1).cumsum(1)
    for place, rank in enumerate(found.curve_ranks):
        assert found.rank_precision[place] == pytest.approx(np.mean(ranked[:, rank - 1] / rank))
        recall = np.mean(ranked[:, rank - 1] / hit.sum(1))
        assert found.rank_recall[place] == pytest.approx(recall)


def test_map_and_evaluate_agree_and_chunks_change_nothing(make_case, monkeypatch):
    case = make_case(queries=23, database=60, bits=10)
    whole = evaluate(*case, top_k=(9,))
    monkeypatch.setattr("retrieval.tally.CHUNK_CELLS", 50)
    cut = evaluate(*case, top_k=(9,))
    assert np.array_equal(whole.ap_per_query, cut.ap_per_query)
    assert cut.map_at_k[9] == pytest.approx(whole.map_at_k[9], abs=1e-14)
    assert mean_average_precision(*case) == whole.map
    found = mean_average_precision(*case, top_k=9, denominator="found")
    assert found == pytest.approx(whole.map_at_k[9], abs=1e-14)
    least = mean_average_precision(*case, top_k=9, denominator="min")
    assert least == pytest.approx(whole.map_at_k_min[9], abs=1e-14)


def test_harmonic_differences_keep_their_digits():
    starts = torch.tensor([0, 3, 63, 64, 1000, 10**6], dtype=torch.float64)
    for count in (0, 1, 2, 100, 5000):
        exact = [
            np.sum(1 / np.arange(int(s) + count, int(s), -1, dtype=np.longdouble)) for s in starts
        ]
        ours = harmonic_difference(starts, torch.tensor(float(count), dtype=torch.float64))
        assert ours.tolist() == pytest.approx([float(x) for x in exact], rel=1e-13)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ties": "random"}, "ties='random'"),
        ({"top_k": 0}, "at least 1"),
        ({"top_k": -1}, "at least 1"),
        ({"denominator": "all"}, "denominator='all'"),
    ],
)
def test_unknown_options_are_refused(make_case, options, says):
    with pytest.raises(UserError, match=says):
        mean_average_precision(*make_case(), **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("ties", ["expected", "optimistic", "index"])
@pytest.mark.parametrize(("bits", "multi"), [(1, False), (64, False), (65, True), (300, True)])
def test_a_gpu_scores_as_the_cpu(make_case, bits, multi, ties):
    case = make_case(queries=30, database=3000, bits=bits, classes=30, multi=multi)
    options = {"ties": ties, "top_k": (5, 100), "train_class_counts": [500, 50, 5] * 10}
    plain = evaluate(*case, **options).to_dict()
    found = evaluate(*case, **options, device="cuda").to_dict()
    for name, value in plain.items():
        if isinstance(value, dict):
            value, found[name] = list(value.values()), list(found[name].values())
        assert found[name] == (pytest.approx(value, abs=1e-12) if name != "ties" else value), name


def test_no_cutoff_leaves_out_the_metrics_within_k():
    rng = np.random.default_rng(0)
    codes, labels = rng.choice([-1, 1], (6, 8)), rng.integers(0, 2, 6)
    found = evaluate(codes, codes, labels, labels, top_k=())
    assert found.map_at_k == found.precision_at == {}
    assert found.map == mean_average_precision(codes, codes, labels, labels)
