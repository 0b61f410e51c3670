"""The curves drawn are the numbers evaluated."""

import numpy as np
import pytest

from retrieval import plots
from retrieval.codes import make_codes
from retrieval.diagnostics import Neighbours, bit_report
from retrieval.figures import draw
from retrieval.metrics import evaluate
from retrieval.scored import score_all


@pytest.fixture
def found(make_case):
    return evaluate(*make_case(queries=20, bits=8))


def test_curves_hold_the_evaluations_numbers(found):
    drawn = plots.rank_curve_figure({"a": found, "b": found}).axes[0]
    assert [line.get_label() for line in drawn.lines] == ["a", "b"]
    assert np.array_equal(drawn.lines[0].get_xdata(), found.rank_recall)
    assert np.array_equal(drawn.lines[0].get_ydata(), found.rank_precision)
    radius = plots.radius_curve_figure({"a": found}).axes[0].lines[0]
    assert np.array_equal(radius.get_ydata(), found.radius_precision)
    recall = plots.recall_at_figure({"a": found}).axes[0].lines[0]
    assert np.array_equal(recall.get_ydata(), found.rank_recall)
    precision = plots.precision_at_figure({"a": found}).axes[0].lines[0]
    assert np.array_equal(precision.get_xdata(), found.curve_ranks)


def test_distances_are_shares(found):
    bars = plots.distance_figure("a", found).axes[0].containers
    for group in bars:
        assert sum(bar.get_height() for bar in group) == pytest.approx(1)


@pytest.mark.parametrize("counts", [None, [500, 60, 20, 5]])
def test_classes_stand_at_their_size(found, counts):
    axes = plots.class_size_figure({"a": found}, counts).axes[0]
    if counts is None:
        assert axes.lines[0].get_ydata().tolist() == sorted(found.map_per_class, reverse=True)
    else:
        points = axes.collections[0].get_offsets()
        assert points.tolist() == [list(p) for p in zip(counts, found.map_per_class, strict=True)]
        words = {text.get_text() for text in axes.texts}
        assert words == {"few-shot", "medium", "many-shot"}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("size", "name"), [(500, "many-shot"), (50, "medium"), (5, "few-shot")])
def test_classes_of_one_size_are_drawn_with_their_group_and_without_a_warning(found, size, name):
    axes = plots.class_size_figure({"a": found}, [size] * 4).axes[0]
    assert [text.get_text() for text in axes.texts] == [name]
    assert axes.get_xlim()[0] < size < axes.get_xlim()[1]


def test_bits_and_neighbours(make_case):
    report = bit_report(make_case()[1])
    bars = plots.balance_figure(report).axes[0].patches
    assert [bar.get_height() for bar in bars] == pytest.approx(report.balance.tolist())
    image = plots.correlation_figure(report).axes[0].images[0]
    assert np.array_equal(image.get_array(), report.correlation)
    found = Neighbours(
        own=np.array([0.2, 0.9, 0.5]),
        rival=np.array([1, 0, 1]),
        rival_share=np.array([0.7, 0.1, 0.3]),
        sampled=np.array([3, 3, 0]),
    )
    axes = plots.neighbours_figure(found, [5, 500, 50]).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [0.9, 0.2]  # the largest class first
    assert axes.lines[0].get_ydata().tolist() == [0.1, 0.7]


@pytest.mark.parametrize("counts", [[500, 60, 20, 5], [500] * 4, [5000, 4999, 3, 1], None])
def test_nothing_is_cut_off_at_the_edges(make_case, counts):
    sides = ("query_codes", "database_codes", "query_labels", "database_labels")
    fields = dict(zip(sides, make_case(queries=20, bits=16), strict=True))
    codes = make_codes(**fields, train_class_counts=counts)
    drawn = draw(score_all({"a": codes, "b": codes}, None, (), "expected", 2, None))
    figures = [drawn.rank_curve, drawn.radius_curve, drawn.precision_at, drawn.recall_at]
    figures += [drawn.class_size]
    for each in (drawn.distances, drawn.balance, drawn.correlation, drawn.neighbours):
        assert set(each) == {"a", "b"}
        figures += each.values()
    for figure in figures:
        shape = plots.pixels(figure).shape
        assert shape == (374, round(110 * figure.get_figwidth()), 3)
        box = figure.get_tightbbox()
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= figure.get_figwidth() and box.y1 <= figure.get_figheight()


def test_logarithmic_axes_have_plain_numbers(found):
    axes = plots.class_size_figure({"a": found}, [50_000, 60, 20, 5]).axes[0]
    axes.figure.canvas.draw()
    words = {label.get_text() for label in axes.get_xticklabels()} - {""}
    assert {"10", "100", "1,000", "10,000"} <= words
