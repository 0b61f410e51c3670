import torch

from models import pixels


def test_features_are_the_pixels_channel_by_channel_row_by_row():
    images = torch.rand(2, 3, 4, 4)
    features = pixels.create_model()(images)
    for i in range(2):
        listed = [images[i, c, y, x] for c in range(3) for y in range(4) for x in range(4)]
        assert features[i].tolist() == [value.item() for value in listed]


def test_its_normalisation_leaves_pixels_as_they_are():
    model = pixels.create_model()
    image = torch.rand(3, 2, 2)
    mean, std = (torch.tensor(value)[:, None, None] for value in (model.mean, model.std))
    assert torch.equal((image - mean) / std, image)


def test_there_is_nothing_to_train():
    assert list(pixels.create_model().parameters()) == []
