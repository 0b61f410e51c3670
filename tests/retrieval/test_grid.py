"""The picture of retrievals frames right answers green and wrong ones red."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from retrieval.grid import CELL, RIGHT, WRONG, retrieval_grid
from utils.errors import UserError


@pytest.mark.parametrize("shape", [(8, 8), (32, 32, 3), (224, 224, 3), (28, 28, 1)])
def test_frames_and_distances_tell_the_truth(tmp_path, shape):
    generator = np.random.default_rng(0)
    queries = generator.integers(0, 256, (2, *shape), dtype=np.uint8)
    results = generator.integers(0, 256, (2, 12, *shape), dtype=np.uint8)
    relevant = generator.random((2, 12)) < 0.5
    distances = np.arange(24).reshape(2, 12)
    path = tmp_path / "grid.png"
    figure = retrieval_grid(queries, results, relevant, path, distances=distances)
    (axes,) = figure.axes
    assert len(axes.images) == len(axes.patches) == len(axes.texts) == 22  # a query, ten results
    for row in range(2):
        for column in range(10):
            cell = row * 11 + column + 1
            drawn = np.asarray(axes.images[cell].get_array())
            assert np.array_equal(drawn.reshape(shape), results[row, column])
            frame = to_hex(axes.patches[cell].get_edgecolor())
            assert frame == (RIGHT if relevant[row, column] else WRONG)
            assert axes.texts[cell].get_text() == f"d = {distances[row, column]}"
            left, right, bottom, top = axes.images[cell].get_extent()
            assert axes.patches[cell].get_xy() == (left, bottom)
            assert axes.texts[cell].get_position()[0] == pytest.approx((left + right) / 2)
            assert axes.texts[cell].get_position()[1] < bottom < top
    assert path.read_bytes().startswith(b"\x89PNG")


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="1 rows of results"):
        retrieval_grid(np.zeros((2, 8, 8)), np.zeros((1, 3, 8, 8)), np.zeros((2, 3)))


def test_images_keep_their_shape_and_stay_apart():
    shapes = [(20, 10, 3), (10, 20, 3), (10, 10)]
    images = [np.zeros(shape, np.uint8) for shape in shapes]
    figure = retrieval_grid(images, [images] * 3, np.ones((3, 3)), title="", query_captions="abc")
    extents = np.array([image.get_extent() for image in figure.axes[0].images]).reshape(3, 4, 4)
    sides = extents[..., 1::2] - extents[..., ::2]  # width, height
    expected = CELL * np.array([[0.5, 1], [1, 0.5], [1, 1]])  # the longer side fills the cell
    for row in range(3):
        assert sides[row] == pytest.approx(expected[[row, 0, 1, 2]])
    assert (extents[:, 1:, 0] > extents[:, :-1, 1]).all()  # beside each other
    assert (extents[1:, :, 3] < extents[:-1, :, 2]).all()  # under each other
    width, height = figure.get_size_inches()
    assert extents.min() > 0 and extents[..., 1].max() < width and extents[..., 3].max() < height
