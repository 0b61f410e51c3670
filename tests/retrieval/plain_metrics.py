"""The metrics by plain loops over a ranking: what every fast path is held against."""

import numpy as np


def distances(query, database):
    """Hamming distances of ±1 codes, one comparison at a time."""
    return np.array([[int((a != b).sum()) for b in database] for a in query])


def grades(query_labels, database_labels):
    """Labels shared by each pair."""
    query_labels, database_labels = np.asarray(query_labels), np.asarray(database_labels)
    if query_labels.ndim == 1:
        return np.array([[int(a == b) for b in database_labels] for a in query_labels])
    return np.array([[int((a & b).sum()) for b in database_labels] for a in query_labels])


def score_ranking(grade, k):
    """All scores of one ranked list of grades cut at k, by their definitions."""
    relevant_in_all = sum(g > 0 for g in grade)
    cut = list(grade[:k])
    found, precision_sum, dcg = 0, 0.0, 0.0
    for rank, g in enumerate(cut, start=1):
        if g > 0:
            found += 1
            precision_sum += found / rank
        dcg += (2.0**g - 1) / np.log2(1 + rank)
    ideal = sum(
        (2.0**g - 1) / np.log2(1 + rank)
        for rank, g in enumerate(sorted(grade, reverse=True)[:k], start=1)
    )
    return {
        "ap_found": precision_sum / found if found else 0.0,
        "ap_min": precision_sum / min(k, relevant_in_all) if relevant_in_all else 0.0,
        "precision": found / len(cut),
        "recall": found / relevant_in_all if relevant_in_all else 0.0,
        "ndcg": dcg / ideal if ideal else 0.0,
    }


def mean_scores(distance, grade, k, ties, draws=1, seed=0):
    """Scores averaged over queries, and for ties='expected' over random orders inside ties."""
    generator = np.random.default_rng(seed)
    rows = []
    for d, g in zip(distance, grade, strict=True):
        for _ in range(draws if ties == "expected" else 1):
            second = {
                "expected": lambda g=g: generator.random(len(g)),
                "index": lambda g=g: np.arange(len(g)),
                "optimistic": lambda g=g: -g,
                "pessimistic": lambda g=g: g,
            }[ties]()
            rows.append(score_ranking(g[np.lexsort((second, d))], k))
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
