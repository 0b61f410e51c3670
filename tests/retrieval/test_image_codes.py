"""Codes without labels read back as they were written, and make codes that are scored."""

from dataclasses import replace

import numpy as np
import pytest

from retrieval.codes import make_codes, pack
from retrieval.image_codes import ImageCodes, load_image_codes, save_image_codes
from retrieval.metrics import evaluate
from utils.errors import UserError


def _codes(count=5, code_length=11):
    rng = np.random.default_rng(count)
    signs = rng.choice([-1, 1], (count, code_length)).astype(np.int8)
    return signs, ImageCodes(
        codes=pack(signs),
        names=np.array([f"ü/{row}.png" for row in range(count)]),
        sizes=rng.integers(0, 2**40, count),
        mtimes_ns=rng.integers(0, 2**62, count),
        code_length=code_length,
        model_digest="ab" * 32,
        made_with={"device": "cpu", "batch_size": 32, "bf16": False},
    )


@pytest.mark.parametrize("count", [0, 5])
def test_what_is_saved_is_loaded(count, tmp_path):
    _, codes = _codes(count)
    save_image_codes(tmp_path / "c.npz", codes)
    found = load_image_codes(tmp_path / "c.npz")
    for name, value in vars(codes).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(found, name), value)
            assert getattr(found, name).dtype.kind == value.dtype.kind
        else:
            assert getattr(found, name) == value


def test_the_bit_order_in_the_file_is_numpys_name_for_it(tmp_path):
    signs, codes = _codes()
    save_image_codes(tmp_path / "c.npz", codes)
    with np.load(tmp_path / "c.npz", allow_pickle=False) as archive:
        bits = np.unpackbits(archive["codes"], axis=1, bitorder=str(archive["bit_order"]))
        np.testing.assert_array_equal(bits[:, : archive["code_length"]] * 2.0 - 1, signs)


def test_with_labels_two_files_make_codes_that_are_scored():
    (query_signs, query), (database_signs, database) = _codes(4), _codes(9)
    labels = np.arange(4) % 2, np.arange(9) % 2
    codes = make_codes(
        query_codes=query.codes,
        database_codes=database.codes,
        code_length=query.code_length,
        query_labels=labels[0],
        database_labels=labels[1],
    )
    found = evaluate(
        codes.query_codes, codes.database_codes, *labels, code_length=codes.code_length, top_k=()
    )
    assert found.map == evaluate(query_signs, database_signs, *labels, top_k=()).map


def test_another_file_is_refused_in_one_line(tmp_path):
    _, codes = _codes()
    save_image_codes(tmp_path / "c.npz", codes)
    whole = (tmp_path / "c.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(tmp_path / "other.npz", codes=codes.codes)
    for name in ("absent.npz", "cut.npz", "other.npz"):
        with pytest.raises(UserError, match=name) as caught:
            load_image_codes(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_columns_of_other_lengths_are_refused():
    _, codes = _codes()
    with pytest.raises(UserError, match="names has 4 entries for 5 codes"):
        replace(codes, names=codes.names[1:])
    with pytest.raises(UserError, match="code_length=40"):
        replace(codes, code_length=40)
