"""The same codes read the same from every format."""

import csv

import numpy as np
import pytest
from scipy.io import savemat

from retrieval.codes import pack, save_codes
from retrieval.readers import read_codes
from utils.errors import UserError

NAMES = ("query_codes", "database_codes", "query_labels", "database_labels")


@pytest.fixture
def case(make_case):
    return dict(zip(NAMES, make_case(bits=11), strict=True))


def _assert_same(codes, case):
    for side in ("query", "database"):
        assert np.array_equal(getattr(codes, f"{side}_codes"), pack(case[f"{side}_codes"]))
        assert np.array_equal(getattr(codes, f"{side}_labels"), case[f"{side}_labels"])
    assert codes.code_length == 11


def test_own_npz_and_foreign_npz(tmp_path, case):
    save_codes(tmp_path / "codes.npz", **case)
    _assert_same(read_codes(tmp_path / "codes.npz"), case)
    bits = {"qB": (case["query_codes"] > 0), "rB": (case["database_codes"] > 0).astype(np.uint8)}
    labels = {"QL": case["query_labels"], "rL": case["database_labels"][:, None]}
    np.savez(tmp_path / "foreign.npz", **bits, **labels)
    _assert_same(read_codes(tmp_path / "foreign.npz"), case)


def test_real_numbers_are_signed(tmp_path, case):
    scaled = case | {name: case[name] * 0.3 for name in NAMES[:2]}
    np.savez(tmp_path / "real.npz", **scaled)
    _assert_same(read_codes(tmp_path / "real.npz"), case)


def test_folder_of_npy_and_of_csv(tmp_path, case):
    (tmp_path / "npy").mkdir()
    (tmp_path / "csv").mkdir()
    for name, values in case.items():
        np.save(tmp_path / "npy" / f"{name}.npy", values)
        np.savetxt(tmp_path / "csv" / f"{name}.csv", values, delimiter=",", fmt="%d")
    _assert_same(read_codes(tmp_path / "npy"), case)
    _assert_same(read_codes(tmp_path / "csv"), case)


def test_matlab(tmp_path, case):
    savemat(tmp_path / "codes.mat", {name: values.astype(float) for name, values in case.items()})
    _assert_same(read_codes(tmp_path / "codes.mat"), case)


@pytest.mark.parametrize("multi", [False, True])
def test_table(tmp_path, make_case, multi):
    case = dict(zip(NAMES, make_case(bits=11, multi=multi), strict=True))
    if multi:
        case["query_labels"][:, 0] = case["database_labels"][:, 0] = 1  # a row names its classes
    with (tmp_path / "codes.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["set", "name", "label", "code"])
        for side in ("query", "database"):
            pairs = zip(case[f"{side}_codes"], case[f"{side}_labels"], strict=True)
            for index, (code, label) in enumerate(pairs):
                written = ";".join(map(str, np.flatnonzero(label))) if multi else label
                digits = "".join("1" if bit > 0 else "0" for bit in code)
                table.writerow([side, f"{side}{index}", written, digits])
    codes = read_codes(tmp_path / "codes.csv")
    _assert_same(codes, case)
    assert codes.query_names[0] == "query0"


def test_what_cannot_be_read_is_named(tmp_path, case):
    (tmp_path / "broken.npz").write_bytes(b"nonsense")
    (tmp_path / "broken.mat").write_bytes(b"nonsense" * 40)
    (tmp_path / "codes.txt").write_text("1")
    (tmp_path / "few.csv").write_text("a,b\n1,2\n")
    (tmp_path / "bad.csv").write_text("set,label,code\nquery,x,01\n")
    (tmp_path / "ragged.csv").write_text("set,label,code\nquery,1,01\nquery,1,011\n")
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "half.npz", query_codes=case["query_codes"])
    for name, says in (
        ("absent.npz", "no such file"),
        ("broken.npz", "not a readable"),
        ("broken.mat", "not a readable"),
        ("codes.txt", "unknown format"),
        ("few.csv", "set,label,code"),
        ("bad.csv", "label 'x'"),
        ("ragged.csv", "all of one length"),
        ("empty", "found nothing"),
        ("half.npz", "no database_codes"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            read_codes(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
