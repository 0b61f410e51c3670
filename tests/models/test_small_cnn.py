import pytest
import torch
from torch import nn

from models import small_cnn


@pytest.mark.parametrize("size", [8, 9, 16, 32])
@pytest.mark.parametrize("width", [4, 6])
def test_images_of_any_small_size_give_out_features_numbers(size, width):
    model = small_cnn.create_model(width)
    assert model.out_features == 4 * width
    assert model(torch.zeros(3, 3, size, size)).shape == (3, model.out_features)


def test_the_convolutions_widen_from_width_to_four_times_width():
    convolutions = [m for m in small_cnn.create_model(5).modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(3, 5), (5, 10), (10, 20)]


def test_each_image_is_coded_by_itself_in_evaluation_mode():
    torch.manual_seed(0)
    model = small_cnn.create_model(4).eval()
    images = torch.randn(5, 3, 12, 12)
    with torch.no_grad():
        alone = torch.cat([model(image[None]) for image in images])
        torch.testing.assert_close(model(images), alone, rtol=1e-4, atol=1e-5)


def test_every_weight_is_trained():
    torch.manual_seed(0)
    model = small_cnn.create_model(4)
    model(torch.randn(4, 3, 8, 8)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_its_normalisation_maps_pixels_to_minus_one_and_one():
    model = small_cnn.create_model(4)
    ends = [(pixel - m) / s for pixel in (0, 1) for m, s in zip(model.mean, model.std, strict=True)]
    assert ends == [-1, -1, -1, 1, 1, 1]
