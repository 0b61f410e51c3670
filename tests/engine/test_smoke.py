"""A smoke run's made-up images are of the config's kind."""

import pytest
from small_config import make_config

from engine.experiment import train_and_test
from engine.smoke import NUM_CLASSES, smoke_config


@pytest.mark.parametrize(("protocol", "multi_label"), [("nus_wide_tc21", True), (None, False)])
def test_images_have_several_labels_where_the_protocols_have(tmp_path, protocol, multi_label):
    criterion = "binary_cross_entropy" if multi_label else "cross_entropy"
    config = make_config(
        tmp_path,
        data={"protocol": protocol},
        criterions={"classification": {"def_file": f"./loss/{criterion}.py"}},
    )
    small = smoke_config(config, tmp_path / "run")
    metrics = train_and_test(small, open_set=bool(small.data.open_classes))
    assert ("accuracy" in metrics) is not multi_label  # several labels have no accuracy
    assert ("open_set" in metrics) is not multi_label
    assert len(metrics["map_per_class"]) == NUM_CLASSES


def test_some_classes_are_trained_on_where_the_config_says_so(tmp_path):
    small = smoke_config(make_config(tmp_path, data={"train_classes": 2}), tmp_path / "run")
    assert "trained on 3 of 6 classes" in train_and_test(small)["protocol"]
