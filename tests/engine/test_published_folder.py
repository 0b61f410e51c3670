"""A published folder is read only as it was published."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.checkpoint import load_checkpoint
from engine.published_folder import new_folder, read_folder, write_model
from utils.errors import UserError

CHECKPOINT = {
    "state_dict_best": {
        "body": {"layers.0.weight": torch.arange(6.0).view(2, 3).T, "count": torch.tensor(3)},
        "head": {"half": torch.ones(2, dtype=torch.bfloat16), "mask": torch.tensor([True])},
    },
    "config": {"training_opt": {"code_length": [4, 12]}, "engine": "alternate"},
    "database_codes": {
        "names": ["a/é.png", "b.png"],
        "fixed": 1,
        "packed": {4: torch.tensor([[3], [9]], dtype=torch.uint8), 12: torch.ones(2, 2).byte()},
    },
}
ABOUT = {"epoch": 3, "best_map": 0.25, "class_names": ["0", "ü"], "preprocessing": {"mean": [0.1]}}


@pytest.fixture
def folder(tmp_path):
    with new_folder(tmp_path / "model") as temporary:
        write_model(temporary, CHECKPOINT, ABOUT)
    return tmp_path / "model"


def _equal(found, expected):
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(
            _equal(found[key], value) for key, value in expected.items()
        )
    if isinstance(expected, torch.Tensor):
        return found.dtype == expected.dtype and torch.equal(found, expected)
    return found == expected


def test_what_is_written_is_read_back(folder):
    assert _equal(load_checkpoint(folder), {**CHECKPOINT, **ABOUT})


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_one_changed_bit_of_any_file_is_refused_with_its_name(folder):
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 6
    for name in names:
        kept = (folder / name).read_bytes()
        _flip(folder / name)
        with pytest.raises(UserError) as caught:
            read_folder(folder)
        assert "\n" not in str(caught.value)
        if name != "checksums.txt":  # a changed sum is another file's
            assert f"{folder / name} was changed" in str(caught.value)
        (folder / name).write_bytes(kept)
    read_folder(folder)


def test_a_missing_file_is_refused_with_its_name(folder):
    for name in sorted(path.name for path in folder.iterdir()):
        shutil.move(folder / name, folder.parent / name)
        with pytest.raises(UserError, match=name):
            read_folder(folder)
        shutil.move(folder.parent / name, folder / name)


@pytest.mark.parametrize("name", ["extra.txt", "evil.py", ".hidden"])
def test_an_added_file_is_refused_with_its_name(folder, name):
    (folder / name).write_text("x")
    with pytest.raises(UserError, match=f"holds {name}"):
        read_folder(folder)


def test_an_added_folder_is_refused_with_its_name(folder):
    (folder / "deep").mkdir()
    with pytest.raises(UserError, match="holds deep"):
        read_folder(folder)


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "model"
    with new_folder(folder) as temporary:
        write_model(temporary, CHECKPOINT, ABOUT)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@given(data=st.data())
@settings(max_examples=60)
def test_however_a_folder_is_changed_it_is_refused_in_one_line(contents, data):
    before = contents
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, content in before.items():
            (folder / name).write_bytes(content)
        path = folder / data.draw(st.sampled_from(sorted(before)))
        content = before[path.name]
        at = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["flip", "cut", "insert", "swap", "rename"]))
        if kind == "flip":
            bit = bytes([content[at] ^ data.draw(st.integers(1, 255))])
            path.write_bytes(content[:at] + bit + content[at + 1 :])
        elif kind == "cut":
            path.write_bytes(content[:at])
        elif kind == "insert":
            path.write_bytes(content[:at] + data.draw(st.binary(min_size=1)) + content[at:])
        else:
            other = data.draw(st.sampled_from(sorted(before)))
            path.replace(folder / (other if kind == "swap" else f"{other}.old"))
        after = {each.name: each.read_bytes() for each in folder.iterdir()}
        if after == before:
            assert _equal(read_folder(folder), {**CHECKPOINT, **ABOUT})
            return
        with pytest.raises(UserError) as caught:
            read_folder(folder)
        assert "\n" not in str(caught.value)


def test_files_that_are_as_published_but_make_no_model_are_one_line(tmp_path):
    for number, (name, content) in enumerate(
        [("model.json", "[1"), ("config.yaml", "text"), ("model.safetensors", "no tensors")]
    ):
        folder = tmp_path / str(number)
        with new_folder(folder) as temporary:
            write_model(temporary, CHECKPOINT, ABOUT)
            (temporary / name).write_text(content)
        with pytest.raises(UserError) as caught:
            read_folder(folder)
        assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_spoilt_line_of_the_checksums_is_named(folder):
    with (folder / "checksums.txt").open("a") as stream:
        stream.write("x\n")
    lines = len((folder / "checksums.txt").read_text().splitlines())
    with pytest.raises(UserError, match=f"checksums.txt, line {lines}: no checksum"):
        read_folder(folder)


def test_a_folder_without_checksums_is_no_published_model(tmp_path):
    (tmp_path / "model.json").write_text(json.dumps({}))
    with pytest.raises(UserError, match="is no published model"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("end", [b"", b"\r", b"\v", b"\n\n"])
def test_even_the_last_line_end_of_the_checksums_counts(contents, tmp_path, end):
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "checksums.txt").write_bytes(contents["checksums.txt"][:-1] + end)
    with pytest.raises(UserError, match=r"checksums\.txt"):
        read_folder(tmp_path)
