"""The pictures that a run leaves are those of its codes and images."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from small_config import make_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.experiment import train_and_test
from retrieval.codes import load_codes, unpack

TAGS = {
    "retrieval/grid",
    "retrieval/precision_recall",
    "retrieval/precision_recall_by_radius",
    "retrieval/precision_at_k",
    "retrieval/map_by_class_size",
    "codes/bit_balance",
    "codes/bit_correlation",
}


@pytest.mark.pictures
def test_page_file_and_tensorboard_show_the_same(tmp_path):
    train_and_test(make_config(tmp_path))
    grid = (tmp_path / "retrieval_grid.png").read_bytes()
    page = (tmp_path / "report.html").read_text()
    assert base64.b64encode(grid).decode() in page
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    assert set(events.Tags()["images"]) == TAGS
    logged = Image.open(io.BytesIO(events.Images("retrieval/grid")[0].encoded_image_string))
    assert np.array_equal(
        np.asarray(logged), np.asarray(Image.open(io.BytesIO(grid)).convert("RGB"))
    )
    vectors = np.loadtxt(tmp_path / "00000/database/tensors.tsv", delimiter="\t")
    codes = load_codes(tmp_path / "codes.npz")
    stored = np.asarray(unpack(codes.database_codes, codes.code_length))
    assert {tuple(row) for row in vectors} <= {tuple(row) for row in stored}
