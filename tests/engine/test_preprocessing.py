"""What goes with a model's weights is what its run does to an image."""

from dataclasses import replace

import numpy as np
import pytest
from small_config import make_config

from data.augment import evaluation_batch
from data.feature_rows import FeatureRows
from data.file_images import FileImages
from data.images import ArrayImages
from engine.preprocessing import preprocessing, steps
from engine.run import open_run


@pytest.fixture
def run(tmp_path):
    return open_run(make_config(tmp_path, augmentation={"interpolation": "bicubic"}))


def _with(run, images):
    return replace(run, dataset=replace(run.dataset, images=images))


def test_the_values_are_the_runs_own(run):
    found = preprocessing(run)
    assert found["held_size"] == 8
    assert found["image_size"] == 8
    assert found["interpolation"] == "bicubic"
    pixels = run.dataset.images.resident(run.device)[:3]
    expected = evaluation_batch(pixels, run.augmentation).numpy()
    mean, std = (np.array(found[name])[:, None, None] for name in ("mean", "std"))
    np.testing.assert_allclose((pixels.numpy() / 255 - mean) / std, expected, atol=1e-6)


def test_large_files_are_held_at_no_size(run):
    images = FileImages(run.dataset.source)
    found = preprocessing(_with(run, images))
    assert found["held_size"] is None
    (said,) = [step for step in steps(found) if "centre" in step]
    assert said == "resize the shorter side to 9, bicubic, and take the centre, 8 x 8"


def test_features_and_pictures_that_are_not_square_have_none(run):
    for images in (FeatureRows(np.zeros((2, 4), dtype=np.float32)),
                   ArrayImages(np.zeros((2, 8, 9, 3), dtype=np.uint8))):  # fmt: skip
        assert preprocessing(_with(run, images)) is None


def test_the_steps_name_each_size_once_and_mirroring(run):
    found = preprocessing(run) | {"held_size": 32, "image_size": 64, "mirror_codes": True}
    said = steps(found)
    assert [step for step in said if "32 x 32" in step] == [
        "unless it is 32 x 32: resize the shorter side to 32, bicubic, and take the centre, 32 x 32"
    ]
    assert "resize it whole to 64 x 64, bicubic" in said
    assert "mirror" in said[-1]
    assert len(steps(found | {"image_size": 32, "mirror_codes": False})) == 3
