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


def test_one_query_with_one_hot_labels_stays_one_query(tmp_path, make_case):
    query, database, _, database_labels = make_case(queries=1, bits=11)
    hot = np.eye(4, dtype=int)
    labels = {"query_labels": hot[[2]], "database_labels": hot[database_labels]}
    np.savez(tmp_path / "one.npz", qB=query, rB=database, **labels)
    assert read_codes(tmp_path / "one.npz").query_labels.tolist() == [[0, 0, 1, 0]]
    row = {"query_labels": np.array([[2]]), "database_labels": database_labels[None]}
    np.savez(tmp_path / "row.npz", qB=query, rB=database, **row)
    assert read_codes(tmp_path / "row.npz").query_labels.tolist() == [2]
    assert np.array_equal(read_codes(tmp_path / "row.npz").database_labels, database_labels)


@pytest.mark.parametrize("own_names", [True, False])
@pytest.mark.parametrize("length", [[11, 11], 10.5, "x"])
def test_a_code_length_that_is_no_number_is_named(tmp_path, case, length, own_names):
    names = NAMES if own_names else ("qB", "rB", "qL", "rL")
    fields = dict(zip(names, case.values(), strict=True))
    np.savez(tmp_path / "codes.npz", code_length=length, **fields)
    with pytest.raises(UserError, match=r"codes\.npz: code_length .*expected one whole number"):
        read_codes(tmp_path / "codes.npz")


def test_code_lengths_of_the_two_sides_are_compared(tmp_path):
    rows = "set,label,code\nquery,0,01\ndatabase,0,0100\n"
    (tmp_path / "widths.csv").write_text(rows)
    with pytest.raises(UserError, match="query_codes have 2 bits and database_codes 4"):
        read_codes(tmp_path / "widths.csv")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"set,label,code\nquery,\xff,01\n", "not readable"),
        (b"set,label,code\nquery,1,01\nquery,1\n", "line 3 has 2 values"),
        (b"set,label,code\nquery,1,01,7\n", "line 2 has 4 values"),
        (b"set,label,code\nquery,1;-1,01\n", "label '1;-1'"),
        (b"set,label,code\nquery,1,01\n", "no row of set 'database'"),
        (b"set,label,code\n", "expected"),
    ],
)
def test_a_wrong_table_is_one_line(tmp_path, content, says):
    (tmp_path / "codes.csv").write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        read_codes(tmp_path / "codes.csv")
    assert "codes.csv" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["query_codes.npy", "query_codes.csv", "query_names.csv"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe,x"])
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_a_broken_file_in_a_folder_is_one_line(tmp_path, case, name, content):
    for stem, values in case.items():
        np.save(tmp_path / f"{stem}.npy", values)
    if name.endswith("codes.csv"):
        (tmp_path / "query_codes.npy").unlink()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_codes(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
