"""Packing loses nothing, and codes.npz comes back as it went."""

import dataclasses

import numpy as np
import pytest
import torch

from retrieval.codes import Codes, binarize, code_words, load_codes, pack, save_codes, unpack
from utils.errors import UserError


def test_sign_of_zero_is_plus_one_for_arrays_and_tensors():
    values = np.array([[-0.5, 0.0, 2.0]])
    assert binarize(values).tolist() == [[-1, 1, 1]]
    assert binarize(values).dtype == np.int8
    assert binarize(torch.from_numpy(values)).tolist() == [[-1, 1, 1]]
    with pytest.raises(UserError, match="1 NaN"):
        binarize(np.array([[0.0, np.nan]]))


@pytest.mark.parametrize("bits", [1, 7, 8, 9, 48, 64, 65, 200, 256])
def test_bit_order_is_numpys_little_and_unpack_inverts(bits):
    codes = np.random.default_rng(bits).choice([-1, 1], (5, bits)).astype(np.int8)
    packed = pack(codes)
    assert np.array_equal(packed, np.packbits(codes > 0, axis=1, bitorder="little"))
    assert np.array_equal(unpack(packed, bits), codes)
    as_tensor = pack(torch.from_numpy(codes).float())
    assert isinstance(as_tensor, torch.Tensor)
    assert np.array_equal(as_tensor.numpy(), packed)
    assert torch.equal(unpack(as_tensor, bits), torch.from_numpy(codes))


@pytest.mark.parametrize("bits", [3, 64, 100])
def test_words_are_the_same_from_signs_and_from_packed_codes(bits):
    codes = np.random.default_rng(bits).choice([-1, 1], (4, bits))
    words, length = code_words(codes, None, torch.device("cpu"))
    again, _ = code_words(pack(codes), bits, torch.device("cpu"))
    assert torch.equal(words, again)
    assert (length, words.shape[1]) == (bits, -(-bits // 64))


@pytest.mark.parametrize(
    ("codes", "bits", "says"),
    [
        (np.array([[0, 1]]), None, "only -1 and"),
        (np.array([[np.nan, 1.0]]), None, "NaN"),
        (np.ones(3), None, "shape"),
        (np.ones((3, 0)), None, "shape"),
        (np.zeros((2, 1), np.uint8), None, "code_length"),
        (np.zeros((2, 1), np.uint8), 9, "1 bytes"),
        (np.array([[8]], np.uint8), 3, "past code_length"),
        (np.ones((2, 4)), 5, "4 bits"),
        (np.array([["a"]]), None, "expected numbers"),
    ],
)
def test_wrong_codes_are_refused_in_one_line(codes, bits, says):
    with pytest.raises(UserError, match=says) as caught:
        code_words(codes, bits, torch.device("cpu"))
    assert "\n" not in str(caught.value)


def test_saved_codes_come_back(tmp_path, make_case):
    query, database, query_labels, database_labels = make_case(bits=20)
    values = {
        "query_codes": torch.from_numpy(query),
        "database_codes": database,
        "query_labels": query_labels,
        "database_labels": torch.from_numpy(database_labels),
        "query_names": [f"q{i}" for i in range(5)],
        "database_names": [f"d{i}" for i in range(40)],
        "class_names": ["häher", "b", "c", "d"],
        "train_class_counts": torch.tensor([500, 60, 20, 5]),
        "protocol": "IF100",
        "dataset": "CIFAR-100",
    }
    save_codes(tmp_path / "codes.npz", **values)
    codes = load_codes(tmp_path / "codes.npz")
    assert codes.code_length == 20
    assert np.array_equal(unpack(codes.database_codes, 20), database)
    assert codes.train_class_counts.tolist() == [500, 60, 20, 5]
    assert codes.class_names[0] == "häher"
    assert (codes.protocol, codes.dataset) == ("IF100", "CIFAR-100")
    stored = {field.name for field in dataclasses.fields(Codes)}
    assert set(np.load(tmp_path / "codes.npz").files) == stored


def test_saving_refuses_what_does_not_fit(tmp_path, make_case):
    query, database, query_labels, database_labels = make_case()
    names = ("query_codes", "database_codes", "query_labels", "database_labels")
    good = dict(zip(names, (query, database, query_labels, database_labels), strict=True))
    for change, says in (
        ({"query_labels": query_labels[:2]}, "query_labels has 2"),
        ({"database_names": ["a"]}, "database_names has 1"),
        ({"database_codes": None}, "lack database_codes"),
        ({"colour": 1}, "no field 'colour'"),
        ({"code_length": 9}, "code_length=9"),
    ):
        with pytest.raises(UserError, match=says):
            save_codes(tmp_path / "codes.npz", **(good | change))
    assert not list(tmp_path.iterdir())


def test_loading_names_the_file_that_is_wrong(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_codes(tmp_path / "codes.npz")
    (tmp_path / "codes.npz").write_text("not an archive")
    with pytest.raises(UserError, match="not a readable"):
        load_codes(tmp_path / "codes.npz")
    np.savez(tmp_path / "codes.npz", query_codes=np.zeros((1, 1), np.uint8))
    with pytest.raises(UserError, match=r"codes\.npz: codes lack"):
        load_codes(tmp_path / "codes.npz")
