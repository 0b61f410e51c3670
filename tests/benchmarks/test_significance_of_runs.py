"""Differences of runs' MAPs are those of their codes, and p-values are scipy's."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.precisions import average_precisions, keep_precisions, read_precisions
from benchmarks.significance import compare as compare_runs
from benchmarks.significance import main, score
from retrieval.codes import load_codes, make_codes, save_codes, unpack
from utils.errors import UserError

CLASSES, QUERIES, DATABASE, BITS = 3, 24, 60, 12


def _write_run(folder, noise, seed=0, names="q", **changes):
    """Codes of classes with `noise` of their bits flipped, in a run's folder."""
    rng = np.random.default_rng([seed, int(noise * 100)])
    centres = np.random.default_rng(9).choice([-1, 1], (CLASSES, BITS))
    labels = {"query": np.arange(QUERIES) % CLASSES, "database": np.arange(DATABASE) % CLASSES}
    codes = {
        f"{side}_codes": centres[each] * np.where(rng.random((len(each), BITS)) < noise, -1, 1)
        for side, each in labels.items()
    }
    given = {f"{side}_labels": each for side, each in labels.items()} | codes
    given |= {"query_names": [f"{names}{n}" for n in range(QUERIES)], **changes}
    folder.mkdir(parents=True, exist_ok=True)
    save_codes(folder / "codes.npz", **vars(make_codes(train_class_counts=[9, 5, 2], **given)))
    return str(folder)


def _looped_precisions(codes):
    """Average precision of a ranking, averaged over random orders of the ties."""
    rng, found = np.random.default_rng(0), []
    query, database = (
        unpack(each, codes.code_length) for each in (codes.query_codes, codes.database_codes)
    )
    for code, label in zip(query, codes.query_labels, strict=True):
        distances, relevant = (database != code).sum(1), codes.database_labels == label
        scores = []
        for _ in range(300):
            hits = relevant[np.lexsort((rng.random(len(distances)), distances))]
            scores.append((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())
        found.append(np.mean(scores))
    return np.array(found)


def test_average_precisions_are_those_of_rankings_with_ties_shuffled(tmp_path):
    codes = load_codes(_write_run(tmp_path / "a", 0.2) + "/codes.npz")
    assert average_precisions(codes) == pytest.approx(_looped_precisions(codes), abs=0.02)


def test_the_test_over_seeds_is_scipys_on_the_mean_of_each_query(tmp_path):
    for seed in range(3):
        _write_run(tmp_path / f"a{seed}", 0.2, seed)
        _write_run(tmp_path / f"b{seed}", 0.21, seed)
    first, second = (score(str(tmp_path / f"{name}{{seed}}"), [0, 1, 2]) for name in "ab")
    found, by_seed = compare_runs(first, second)
    means = [np.mean([run.values for run in runs], 0) for runs in (first, second)]
    differences = means[0] - means[1]
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=1
    )
    interval = stats.bootstrap(
        (differences,), np.mean, method="percentile", n_resamples=20_000, rng=1
    ).confidence_interval
    assert 0.05 < expected.pvalue < 0.95
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.02)
    assert found.difference == pytest.approx(differences.mean())
    width = interval.high - interval.low
    assert (found.low, found.high) == pytest.approx(tuple(interval), abs=width / 20)
    assert by_seed == pytest.approx(
        [a.values.mean() - b.values.mean() for a, b in zip(first, second, strict=True)]
    )


def _write_metrics(folder, method, seed):
    metrics = dict.fromkeys(("protocol", "map_interval_95", "map_at_k", "seconds"))
    metrics |= {"method": method, "code_length": BITS, "imbalance_factor": 50, "map": 0}
    metrics |= {"dataset": "D", "seed": seed, "recipe": f"r{method}"}
    metrics["groups"] = dict.fromkeys(("many", "medium", "few"))
    (folder / "metrics.json").write_text(json.dumps(metrics))


def test_each_other_run_is_a_line_and_a_row(tmp_path, capsys):
    for name, noise in (("a", 0.05), ("b", 0.3), ("c", 0.4)):
        for seed in (0, 1):
            folder = tmp_path / f"s{seed}" / name
            _write_run(folder, noise, seed)
            _write_metrics(folder, f"m{name}", seed)
    runs = [f"{tmp_path}/s{{seed}}/{name}" for name in "abc"]
    record = tmp_path / "record.csv"
    assert main([*runs, "--seeds", "0", "1", "--record", str(record)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{runs[0]} - {run}" for run in runs[1:]]
    with record.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["against"] for row in rows] == ["mb", "mc"]
    for line, row in zip(lines, rows, strict=True):
        shown = [float(number) for number in re.findall(r"[+-]0\.\d{4}", line)]
        names = ("difference", "low", "high")
        assert shown[:3] == pytest.approx([float(row[name]) for name in names], abs=1e-4)
        assert float(row["low"]) > 0 and float(row["p_value"]) < 0.01
        assert (row["seeds"], row["queries"]) == ("2", str(QUERIES))
    assert [(row["recipe"], row["against_recipe"]) for row in rows] == [
        ("rma", "rmb"),
        ("rma", "rmc"),
    ]
    assert main([*runs, "--seeds", "0", "1"]) == 0
    assert capsys.readouterr().out.splitlines() == lines


def test_what_was_kept_of_a_run_is_tested_as_the_run_is(tmp_path, capsys):
    folders = [Path(_write_run(tmp_path / name, noise)) for name, noise in (("a", 0.1), ("b", 0.2))]
    for folder in folders:
        _write_metrics(folder, folder.name, 3)
    (b,) = score(str(folders[1]), [3])
    path = keep_precisions(b, tmp_path / "kept")
    assert path.name == f"D_if50_{BITS}bits_seed3_b.npz"
    (found,) = score(f"{tmp_path}/kept/D_if50_{BITS}bits_seed{{seed}}_b.npz", [3])
    assert found.values == pytest.approx(b.values, abs=8e-6)
    assert (found.digests, found.about) == (b.digests, b.about)
    assert main([str(folders[0]), str(path)]) == 0
    difference = float(capsys.readouterr().out.split(": ")[1][:7])
    assert main([*map(str, folders), "--keep", str(tmp_path / "kept")]) == 0
    *kept, last = capsys.readouterr().out.splitlines()
    assert kept[1] == f"kept {path}"
    assert float(last.split(": ")[1][:7]) == pytest.approx(difference, abs=1.1e-4)


def test_a_run_without_metrics_and_a_file_of_something_else_are_refused(tmp_path, capsys):
    run = _write_run(tmp_path / "a", 0.1)
    assert main([run, "--keep", str(tmp_path)]) == 2
    assert "no metrics.json" in capsys.readouterr().err
    other = tmp_path / "other.npz"
    np.savez(other, precisions=np.zeros(3), said=np.array('{"digests": [], "about": {}}'))
    (tmp_path / "text.npz").write_text("no archive")
    _write_metrics(Path(run), "m", 0)
    whole = keep_precisions(read_precisions(Path(run)), tmp_path / "kept").read_bytes()
    damaged, refused = tmp_path / "damaged.npz", 0
    for place in range(0, len(whole), 5):
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        refused += main([run, str(damaged)]) == 2
    damaged.write_bytes(whole[: len(whole) // 2])
    assert main([run, str(damaged)]) == 2
    assert refused > 10 and "Traceback" not in capsys.readouterr().err
    assert main([run, "--keep", str(other)]) == 2  # a file is there
    assert capsys.readouterr().err.startswith("error: ")
    for path in (other, tmp_path / "text.npz", tmp_path / "none.npz"):
        assert main([run, str(path)]) == 2
        message = capsys.readouterr().err
        assert "holds no precisions" in message and message.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"names": "other"}, "query names"),
        ({"database_labels": np.arange(DATABASE) % 2}, "database labels"),
    ],
)
def test_runs_that_ask_or_search_other_images_are_refused(tmp_path, capsys, changes, says):
    a = _write_run(tmp_path / "a", 0.1)
    b = _write_run(tmp_path / "b", 0.1, **changes)
    assert main([a, b]) == 2
    message = capsys.readouterr().err
    assert says in message and message.startswith("error: ") and message.count("\n") == 1


def test_seeds_of_several_methods_are_refused(tmp_path, capsys):
    for seed, method in ((0, "m"), (1, "n")):
        _write_run(tmp_path / f"a{seed}", 0.1, seed)
        _write_metrics(tmp_path / f"a{seed}", method, seed)
    name = f"{tmp_path}/a{{seed}}"
    assert main([name, name, "--seeds", "0", "1"]) == 2
    assert "has method n" in capsys.readouterr().err


def test_seeds_of_other_queries_and_of_other_numbers_are_refused(tmp_path, capsys):
    _write_run(tmp_path / "a0", 0.1)
    _write_run(tmp_path / "a1", 0.1, names="other")
    with pytest.raises(UserError, match="query names"):
        score(f"{tmp_path}/a{{seed}}", [0, 1])
    _write_run(tmp_path / "a2", 0.1)
    assert main([f"{tmp_path}/a{{seed}}", f"{tmp_path}/a0", "--seeds", "0", "2"]) == 2
    assert "with 1; write {seed}" in capsys.readouterr().err
    assert main([f"{tmp_path}/a0"]) == 2
    assert main([f"{tmp_path}/a0", f"{tmp_path}/none"]) == 2
