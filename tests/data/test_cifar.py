import hashlib
import pickle

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from data.cifar import create_source
from utils.errors import UserError


def fake_cifar10(root, monkeypatch):
    """Write 6 training and 2 test images in CIFAR-10's files, and let torchvision accept them."""
    folder = root / CIFAR10.base_folder
    folder.mkdir()
    rng = np.random.default_rng(0)

    def write(name, content):
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    pixels = rng.integers(0, 256, (8, 3072), dtype=np.uint8)
    parts = {
        "one": {"data": pixels[:4], "labels": [3, 1, 0, 2]},
        "two": {"data": pixels[4:6], "labels": [9, 9]},
        "test": {"data": pixels[6:], "labels": [5, 6]},
    }
    sums = {name: write(name, part) for name, part in parts.items()}
    meta = {"label_names": [f"kind {c}" for c in range(10)]}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in ("one", "two")])
    monkeypatch.setattr(CIFAR10, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(
        CIFAR10, "meta", {"filename": "meta", "key": "label_names", "md5": write("meta", meta)}
    )
    return pixels


def test_stored_files_become_a_source_in_memory(tmp_path, monkeypatch):
    pixels = fake_cifar10(tmp_path, monkeypatch)
    source = create_source(tmp_path, name="CIFAR10")
    assert source.arrays.shape == (8, 32, 32, 3)
    assert np.array_equal(source.arrays, pixels.reshape(8, 3, 32, 32).transpose(0, 2, 3, 1))
    assert source.labels.tolist() == [3, 1, 0, 2, 9, 9, 5, 6]
    assert source.subsets["test"].tolist() == [6, 7]
    assert source.class_names[3] == "kind 3"
    assert source.image_names[6] == "test/00000"
    joined = create_source(tmp_path, name="CIFAR10", join=True)
    assert joined.subsets["all"].tolist() == list(range(8))


def test_absent_files_without_download(tmp_path):
    with pytest.raises(UserError, match=r"cifar-100-python .*download: True") as error:
        create_source(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["two", "test", "meta"])
def test_a_damaged_file_is_named_before_it_is_unpickled(tmp_path, monkeypatch, name):
    fake_cifar10(tmp_path, monkeypatch)
    path = tmp_path / CIFAR10.base_folder / name
    whole = path.read_bytes()
    damaged = [whole[:-1], b"", whole[:20] + b"x" + whole[21:], b"cos\nsystem\n(S'exit 1'\ntR."]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"CIFAR10 is not in .* \({name} is damaged\)"):
            create_source(tmp_path, name="CIFAR10")
    path.unlink()
    with pytest.raises(UserError, match=f"{name} is absent"):
        create_source(tmp_path, name="CIFAR10")


def test_failed_download(tmp_path, monkeypatch):
    def fail(self):
        raise OSError("no route to host")

    monkeypatch.setattr(CIFAR10, "download", fail)
    with pytest.raises(UserError, match=r"data_batch_1 is absent.*check the network"):
        create_source(tmp_path, name="CIFAR10", download=True)


def test_unknown_name(tmp_path):
    with pytest.raises(UserError, match="expected one of CIFAR10, CIFAR100"):
        create_source(tmp_path, name="cifar")
