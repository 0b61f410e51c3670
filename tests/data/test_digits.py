import numpy as np
from sklearn.datasets import load_digits

from data.digits import create_source


def test_digits_are_the_rescaled_originals_in_three_channels():
    source = create_source(None)
    original = load_digits()
    assert source.arrays.shape == (1797, 8, 8, 3)
    for channel in range(3):
        assert np.abs(source.arrays[..., channel] - original.images * 255 / 16).max() <= 0.5
    assert np.array_equal(source.labels, original.target)
    assert source.image_names[0] == "digits/0000" and source.class_names[9] == "9"
    assert source.subsets["all"].tolist() == list(range(1797))
