"""What a file of weights holds is read exactly, or refused in a line; its code never runs."""

import argparse
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from functools import cache

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.weights_file import read_weights_file
from utils.errors import UserError

WEIGHTS = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.count": torch.tensor(7)}


def refusal(path):
    with pytest.raises(UserError) as raised:
        read_weights_file(path)
    text = str(raised.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def save(path, values, **options):
    torch.save(values, path, **options)
    return path


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


@pytest.mark.parametrize("name", ["x.pth", "x.pt", "x.bin", "x.safetensors", "x"])
@pytest.mark.parametrize("kind", ["archive", "pickles", "safetensors"])
def test_the_format_is_told_by_the_content_not_by_the_name(tmp_path, name, kind):
    path = tmp_path / name
    if kind == "safetensors":
        safetensors.torch.save_file(WEIGHTS, path)
    else:
        save(path, WEIGHTS, _use_new_zipfile_serialization=kind == "archive")
    assert_equal(read_weights_file(path), WEIGHTS)


def test_values_come_back_as_plain_ones(tmp_path):
    shared = torch.zeros(3)
    state = OrderedDict(w=torch.nn.Parameter(shared))
    state._metadata = {"version": 1}
    options = argparse.Namespace(lr=0.1, name="é")
    values = {"s": state, "t": (1, None, "x"), "o": options, "n": [shared], "k": {1: True}}
    found = read_weights_file(save(tmp_path / "x.pt", values))
    assert type(found["s"]) is dict
    assert type(found["s"]["w"]) is torch.Tensor
    assert found["o"] == {"lr": 0.1, "name": "é"}
    assert found["t"] == (1, None, "x")
    assert found["k"] == {1: True}


def test_methods_that_a_file_hides_do_no_harm(tmp_path):
    state = OrderedDict(w=torch.ones(2))
    state["w"].clone = state["w"].detach = "no method"
    path = save(tmp_path / "x.pt", {"s": state})
    with path.open("rb") as file:
        assert torch.load(file, weights_only=True)["s"]["w"].detach == "no method"
    assert torch.equal(read_weights_file(path)["s"]["w"].clone(), torch.ones(2))


class Code:
    """Makes a file where it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (os.mkdir, (str(self.canary),))


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("kind", ["archive", "pickles", "bare"])
def test_code_in_a_file_is_named_and_not_run(tmp_path, protocol, kind):
    canary, path = tmp_path / "canary", tmp_path / "x.pt"
    if kind == "bare":
        path.write_bytes(pickle.dumps(Code(canary), protocol))
    else:
        new = kind == "archive"
        values = {"w": Code(canary)}
        save(path, values, pickle_protocol=protocol, _use_new_zipfile_serialization=new)
    text = refusal(path)
    if protocol == 2:
        assert "posix.mkdir" in text
        assert "not run" in text
    assert not canary.exists()


def test_a_pickled_network_is_refused_with_what_to_do(tmp_path):
    text = refusal(save(tmp_path / "x.pt", torch.nn.Sequential(torch.nn.Linear(2, 2))))
    assert "torch.nn.modules.container.Sequential" in text
    assert "state_dict()" in text


@given(data=st.data())
def test_a_flipped_bit_of_an_archive_changes_nothing_unseen(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "flipped.pt"
    content = bytearray(save(path, WEIGHTS).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        found = read_weights_file(path)
    except UserError:
        return
    assert_equal(found, WEIGHTS)


@pytest.mark.parametrize("kind", ["archive", "pickles", "safetensors"])
def test_no_beginning_of_a_file_is_read(tmp_path, kind):
    path = tmp_path / "x.pt"
    if kind == "safetensors":
        safetensors.torch.save_file(WEIGHTS, path)
    else:
        save(path, WEIGHTS, _use_new_zipfile_serialization=kind == "archive")
    content = path.read_bytes()
    for length in {0, 1, 9, 100, len(content) // 2, len(content) - 1}:
        path.write_bytes(content[:length])
        refusal(path)


def test_a_compressed_archive_is_refused_before_it_is_inflated(tmp_path):
    whole = save(tmp_path / "x.pt", {"w": torch.zeros(4_000_000)})
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.namelist():
            new.writestr(part, old.read(part))
    assert bomb.stat().st_size < whole.stat().st_size / 100
    assert "compressed" in refusal(bomb)


def test_an_archive_without_checksums_is_refused_and_told(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        path = save(tmp_path / "x.pt", WEIGHTS)
    finally:
        torch.serialization.set_crc32_options(True)
    assert "saved without checksums" in refusal(path)


def test_two_parts_of_one_name_are_refused(tmp_path):
    path = save(tmp_path / "x.pt", WEIGHTS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x/DATA.PKL", pickle.dumps({}, 2))
    assert "two parts of one name" in refusal(path)


@cache
def other_content():
    numbers = io.BytesIO()
    np.savez(numbers, x=np.zeros(3))
    script = io.BytesIO()
    with zipfile.ZipFile(script, "w") as archive:
        archive.writestr("net/data.pkl", b"")
        archive.writestr("net/constants.pkl", b"")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    return {
        "npz": (numbers.getvalue(), "zip archive of other things"),
        "program": (script.getvalue(), "TorchScript"),
        "pointer": (pointer, "git lfs pull"),
        "picture": (b"\x89PNG\r\n\x1a\n", "starts with"),
        "header": (b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", "starts with|cannot be read"),
        "page": (b"<!DOCTYPE html>", "no file of weights"),
        "nothing": (b"", "is empty"),
    }


@pytest.mark.parametrize(
    "kind", ["npz", "program", "pointer", "picture", "header", "page", "nothing"]
)
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_other_files_are_told_for_what_they_are(tmp_path, kind, name):
    path = tmp_path / name
    content, message = other_content()[kind]
    path.write_bytes(content)
    text = refusal(path)
    if name == "x.pth":
        assert any(each in text for each in message.split("|"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(1).expand(10**12), "repeats its numbers"),
        (torch.zeros(9).as_strided((3, 3), (2, 1)), "repeats its numbers"),
        (torch.zeros(3, device="meta"), "without plain numbers"),
        (torch.eye(3).to_sparse(), "without plain numbers"),
    ],
)
def test_a_tensor_that_is_no_plain_one_is_named(tmp_path, value, message):
    text = refusal(save(tmp_path / "x.pt", {"net": {"w": value}}))
    assert message in text
    assert "net.w" in text


def test_tensors_of_other_strides_and_none_are_read(tmp_path):
    values = {
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "part": torch.arange(10.0)[2:9:3],
        "empty": torch.zeros(0, 3),
    }
    assert_equal(read_weights_file(save(tmp_path / "x.pt", values)), values)


def test_lists_without_end_are_refused(tmp_path):
    values = []
    for _ in range(200):
        values = [values]
    assert "deep" in refusal(save(tmp_path / "x.pt", values))
    endless = []
    endless.append(endless)
    assert "deep" in refusal(save(tmp_path / "y.pt", endless))


def test_the_older_format_with_a_storage_named_twice_is_refused(tmp_path):
    path = tmp_path / "x.pt"
    values = {"a": torch.zeros(3), "b": torch.ones(3)}
    content = save(path, values, _use_new_zipfile_serialization=False).read_bytes()
    keys = sorted({str(each.untyped_storage()._cdata) for each in values.values()})
    start = content.rindex(keys[0].encode())
    swapped = content[:start] + keys[1].encode() + content[start + len(keys[0]) :]
    path.write_bytes(swapped)
    assert "twice" in refusal(path)
