import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.features import create_source
from data.synthetic import create_source as create_synthetic
from engine.config import check_config, load_config
from engine.features import extract, feature_config, main, make_feature_file
from engine.model import collect_outputs
from engine.run import open_run
from engine.shallow import fit
from engine.smoke import smoke_config
from models.gist import Gist
from utils.errors import UserError

CONFIG = "config/Digits_LT/stage_1.py"


def _image_config(folder, network="small_cnn", **training):
    return check_config(
        {
            "training_opt": {
                "dataset": "Synthetic",
                "method": "sh",
                "log_dir": str(folder / "run"),
                "code_length": 4,
                "image_size": 16,
                "device": "cpu",
                "evaluation_batch_size": 7,
                **training,
            },
            "data": {
                "def_file": "./data/synthetic.py",
                "params": {"num_classes": 4, "image_size": 16, "images_per_class": 10},
                "queries_per_class": 2,
                "validation_per_class": 1,
            },
            "networks": {"feat_model": {"def_file": f"./models/{network}.py"}},
            "engine": "shallow",
            "hasher": {"def_file": "./models/spectral_hashing.py"},
        },
        "test.py",
    )


def test_the_file_holds_the_networks_output_for_every_image_in_order(tmp_path):
    config = _image_config(tmp_path)
    run = open_run(config)
    features = extract(run, torch.float32)
    named = torch.nn.Sequential(run.model, _Named())
    count = len(run.dataset.source)
    expected = collect_outputs(
        named, run.dataset, np.arange(count), run.augmentation, run.precision, ("features",), 9
    )["features"]
    np.testing.assert_allclose(features, expected.numpy(), rtol=1e-5, atol=1e-6)

    make_feature_file(config, str(tmp_path / "x.npz"), "float32")  # the same seed, the same network
    source = create_source(tmp_path, "x.npz")
    np.testing.assert_array_equal(source.features, features)
    synthetic = create_synthetic(num_classes=4, image_size=16, images_per_class=10)
    assert source.image_names == synthetic.image_names
    np.testing.assert_array_equal(source.labels, synthetic.labels)
    assert source.subsets.keys() == synthetic.subsets.keys()
    assert source.provenance["network"] == "./models/small_cnn.py"
    assert source.provenance["image_size"] == 16


class _Named(torch.nn.Module):
    def forward(self, features):
        return {"features": features}


def test_a_shallow_run_codes_the_file_as_it_codes_the_images(tmp_path):

    config = _image_config(tmp_path, "gist")
    make_feature_file(config, str(tmp_path / "gist.npz"), "float32")
    data = replace(config.data, def_file="./data/features.py", params={"file": "gist.npz"})
    options = replace(config.training_opt, data_root=str(tmp_path))
    runs = open_run(config), open_run(replace(config, data=data, training_opt=options, networks={}))
    assert runs[0].dataset.digest == runs[1].dataset.digest
    codes = [fit(run)[4](run, run.dataset.split.database).codes for run in runs]
    np.testing.assert_array_equal(*codes)


def test_gist_takes_the_place_of_the_networks(tmp_path):
    config = feature_config(_image_config(tmp_path), gist=True)
    run = open_run(config)
    assert [type(network) for network in run.model] == [Gist]
    assert extract(run, torch.float16).dtype == np.float16


def test_only_the_first_network_is_run(tmp_path):

    config = smoke_config(load_config(CONFIG), tmp_path)
    run = open_run(feature_config(config, gist=False))
    assert list(dict(run.model.named_children())) == ["feat_model"]
    count = len(run.dataset.source)
    assert extract(run, torch.float32).shape == (count, run.model[0].out_features)


def test_what_is_no_row_of_features_is_a_user_error(tmp_path):
    config = _image_config(tmp_path)
    run = open_run(config)
    run.model = torch.nn.Sequential(run.model, _Named())
    with pytest.raises(UserError, match="the networks give dict, expected one row"):
        extract(run, torch.float32)
    with pytest.raises(UserError, match="networks is empty; give --gist"):
        feature_config(replace(config, networks={}), gist=False)


def test_the_command_writes_the_file_and_says_what_it_wrote(tmp_path, capsys):
    out = tmp_path / "digits.npz"
    arguments = ["--config", CONFIG, "--gist", "--out", str(out)]
    assert main([*arguments, "--opts", "training_opt.image_size=8", "training_opt.device=cpu"]) == 0
    assert "1797 x 512 float16, 2 MB" in capsys.readouterr().out
    with np.load(out) as file:
        assert json.loads(str(file["provenance"]))["network"] == "./models/gist.py"
    assert create_source(tmp_path, "digits.npz").subsets.keys() == {"all"}


def test_mistakes_are_one_line_before_any_work(tmp_path, capsys):
    for arguments, said in (
        (["--config", "config/none.py", "--out", "x.npz"], "does not exist"),
        (["--config", CONFIG, "--out", str(tmp_path / "x.txt")], "ends in .npz"),
        (
            [
                "--config",
                CONFIG,
                "--gist",
                "--out",
                "x.npz",
                "--opts",
                "training_opt.image_size=30",
            ],
            "multiple of 4",
        ),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_gist_of_features_is_refused_in_a_line(tmp_path):
    config = _image_config(tmp_path, "gist", data_root=str(tmp_path))
    make_feature_file(config, str(tmp_path / "x.npz"))
    data = replace(config.data, def_file="./data/features.py", params={"file": "x.npz"})
    again = feature_config(replace(config, data=data), gist=True)
    with pytest.raises(UserError, match="networks and data do not fit together"):
        make_feature_file(again, str(tmp_path / "y.npz"))
