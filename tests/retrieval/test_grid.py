"""The picture of retrievals frames right answers green and wrong ones red."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from retrieval.grid import RIGHT, WRONG, retrieval_grid
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
    assert len(figure.axes) == 22  # two rows of a query and ten results
    for row in range(2):
        for column in range(10):
            axes = figure.axes[row * 11 + column + 1]
            frame = to_hex(axes.spines["left"].get_edgecolor())
            assert frame == (RIGHT if relevant[row, column] else WRONG)
            assert axes.get_xlabel() == f"d = {distances[row, column]}"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="1 rows of results"):
        retrieval_grid(np.zeros((2, 8, 8)), np.zeros((1, 3, 8, 8)), np.zeros((2, 3)))
