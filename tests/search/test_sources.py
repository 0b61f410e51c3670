import struct
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from retrieval.codes import save_codes
from retrieval.image_codes import ImageCodes, save_image_codes
from search.sources import image_rows, image_sizes, label_texts, read_source
from utils.errors import UserError


def run_codes(path, **changes):
    values = {
        "query_codes": np.array([[1], [2]], np.uint8),
        "database_codes": np.array([[3], [4], [5]], np.uint8),
        "code_length": 8,
        "query_labels": np.array([0, 1]),
        "database_labels": np.array([1, 1, 0]),
        "query_names": ["q/0.png", "q/1.png"],
        "database_names": ["d/0.png", "d/1.png", "d/2.png"],
        "class_names": ["cat", "dog"],
        "train_class_counts": np.array([20, 3]),
    }
    save_codes(path, **{**values, **changes})


def test_a_run_gives_its_database_then_its_queries_with_labels(tmp_path):
    run_codes(tmp_path / "codes.npz")
    coding, batch = read_source(tmp_path)
    assert (coding.code_length, coding.class_names, coding.class_counts) == (
        8, ("cat", "dog"), (20, 3),
    )  # fmt: skip
    assert batch.codes.tolist() == [[3], [4], [5], [1], [2]]
    assert batch.rows["label"].to_pylist() == ["dog", "dog", "cat", "cat", "dog"]
    assert batch.rows["split"].to_pylist() == ["database"] * 3 + ["query"] * 2
    assert batch.rows["path"].to_pylist()[2:4] == ["d/2.png", "q/0.png"]


def test_a_run_without_names_has_rows_without_paths(tmp_path):
    run_codes(tmp_path / "c.npz", query_names=None, database_names=None, class_names=None)
    _, batch = read_source(tmp_path / "c.npz")
    assert batch.rows["path"].to_pylist() == [None] * 5
    assert batch.rows["label"].to_pylist() == ["1", "1", "0", "0", "1"]


def test_codes_of_images_bring_their_model_and_sizes(tmp_path):
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (5, 3)).save(tmp_path / "cat" / "a.png")
    codes = ImageCodes(
        codes=np.array([[7], [8]], np.uint8),
        names=np.array(["cat/a.png", "gone.png"]),
        sizes=np.zeros(2, np.int64),
        mtimes_ns=np.zeros(2, np.int64),
        code_length=8,
        model_digest="ab" * 32,
        made_with={},
    )
    save_image_codes(tmp_path / "c.npz", codes)
    coding, batch = read_source(tmp_path / "c.npz", str(tmp_path))
    assert coding.model_digest == "ab" * 32
    assert coding.image_root == str(tmp_path.resolve())
    assert batch.rows.to_pylist() == [
        {"path": "cat/a.png", "label": "cat", "split": None, "width": 5, "height": 3},
        {"path": "gone.png", "label": None, "split": None, "width": None, "height": None},
    ]


def test_folders_tell_split_and_label():
    names = ["train/cat/1.png", "cat/1.png", "test/1.png", "1.png", "test/a/b/1.png"]
    rows = image_rows(names, "")
    assert rows["split"].to_pylist() == ["train", None, "test", None, "test"]
    assert rows["label"].to_pylist() == ["cat", "cat", None, None, "b"]


def test_sizes_of_spoilt_files_are_left_out(tmp_path):
    Image.new("RGB", (5, 3)).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    short = struct.pack(">I", 4) + b"IHDR" + whole[16:20]  # a header of 4 bytes, 13 expected
    (tmp_path / "short.png").write_bytes(whole[:8] + short + struct.pack(">I", crc32(short[4:])))
    (tmp_path / "words.png").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    names = ["whole.png", "short.png", "words.png", "folder.png", "gone.png"]
    assert image_sizes(names, str(tmp_path)) == {
        "width": [5, None, None, None, None],
        "height": [3, None, None, None, None],
    }


def test_several_labels_are_joined_and_open_images_have_none():
    names = np.array(["sea", "sky", "sun"])
    multi = np.array([[1, 0, 1], [0, 0, 0]])
    assert label_texts(multi, names) == ["sea;sun", ""]
    assert label_texts(np.array([2, -1]), names) == ["sun", ""]


@pytest.mark.parametrize("content", [None, b"", b"PK no archive", b"x" * 100])
def test_what_holds_no_codes_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "codes.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_source(path)
    assert "\n" not in str(refused.value)
