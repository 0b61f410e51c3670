"""The page stands alone, says what was scored, and its figures are those of the metrics."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from retrieval.codes import make_codes, save_codes
from retrieval.metrics import evaluate
from retrieval.report import main, named_images, write_report

NAMES = ("query_codes", "database_codes", "query_labels", "database_labels")


def _fields(case):
    return dict(zip(NAMES, case, strict=True))


def test_page_is_self_contained_and_complete(tmp_path, make_case):
    case = make_case(queries=20, bits=16)
    fields = _fields(case) | {
        "class_names": ["<b>ant</b>", "bee", "cat", "dog"],
        "train_class_counts": [500, 60, 20, 5],
        "protocol": "IF100",
        "dataset": "Made-up",
    }
    generator = np.random.default_rng(0)
    pictures = {
        "query": generator.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8),
        "database": generator.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8),
    }
    pictures["query"][7] = pictures["database"][3]
    metrics = write_report(
        make_codes(**fields),
        tmp_path,
        lambda side, index: pictures[side][index],
        top_k=(10,),
        content_overlap=True,
    )
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert not re.search(r"<script|@import|url\(", page)
    found = evaluate(*case, top_k=(10,))
    for figure in (found.map, found.map_at_k[10], found.map_at_k_min[10], found.ndcg_at[10]):
        assert f"{figure:.4f}" in page
    for words in ("IF100", "expected", "over the relevant found", "16 bits", "Retrievals of"):
        assert words in page
    assert "1 by content (queries 7)" in page
    assert "<b>ant" not in page
    assert metrics["Made-up"]["map"] == found.map
    assert metrics["Made-up"]["overlap"]["same_content"] == 1
    json.dumps(metrics, allow_nan=False)
    assert page.count("data:image/svg+xml") == 9 and page.count("data:image/png") == 2


def test_command_compares_files(tmp_path, make_case, capsys):
    first = _fields(make_case(queries=30, bits=8))
    second = first | {"query_codes": -first["query_codes"]}
    save_codes(tmp_path / "a.npz", **first)
    save_codes(tmp_path / "b.npz", **second)
    out = tmp_path / "out"
    files = [str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]
    assert main([*files, "--out", str(out), "--top_k", "5"]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    paired = metrics["b"]["paired_test_against_first"]
    assert paired["difference"] == pytest.approx(metrics["b"]["map"] - metrics["a"]["map"])
    assert "Compared with a" in (out / "report.html").read_text()
    assert "MAP@ALL" in capsys.readouterr().out


def test_multi_label_codes_have_a_page_too(tmp_path, make_case):
    fields = _fields(make_case(multi=True))
    pictures = np.zeros((40, 8, 8), np.uint8)
    metrics = write_report(
        make_codes(**fields), tmp_path, lambda side, index: pictures[index], top_k=(5,)
    )
    assert metrics["codes"]["ndcg_at"][5] == evaluate(*fields.values(), top_k=(5,)).ndcg_at[5]


def test_files_of_one_name_are_told_apart(tmp_path, make_case):
    for folder in ("run_1", "run_2"):
        save_codes(tmp_path / folder / "codes.npz", **_fields(make_case()))
    files = [str(tmp_path / folder / "codes.npz") for folder in ("run_1", "run_2")]
    assert main([*files, "--out", str(tmp_path)]) == 0
    assert set(json.loads((tmp_path / "metrics.json").read_text())) == {
        "run_1/codes",
        "run_2/codes",
    }


def test_wrong_usage_is_one_line_and_status_2(tmp_path, make_case, capsys):
    assert main([str(tmp_path / "absent.npz")]) == 2
    save_codes(tmp_path / "codes.npz", **_fields(make_case()))
    assert main([str(tmp_path / "codes.npz"), "--ties", "none"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2
    assert "ties='none'" in lines[1]


def test_images_named_in_the_codes_are_shown_and_compared(tmp_path, make_case, capsys):
    fields = _fields(make_case(queries=3, bits=8))
    count = len(fields["database_labels"])
    fields["query_names"] = [f"query/{i}.png" for i in range(3)]
    fields["database_names"] = [f"database/{i}.png" for i in range(count)]
    save_codes(tmp_path / "codes.npz", **fields)
    generator = np.random.default_rng(0)
    for name in [*fields["query_names"], *fields["database_names"]]:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    (tmp_path / "images/query/1.png").write_bytes((tmp_path / "images/database/0.png").read_bytes())
    arguments = [str(tmp_path / "codes.npz"), "--images", str(tmp_path / "images")]
    assert main(arguments) == 0
    page = (tmp_path / "report.html").read_text()
    assert "Retrievals of" in page
    assert "1 by content" in page
    (tmp_path / "images/query/2.png").unlink()
    assert main(arguments) == 2
    assert "query/2.png cannot be read" in capsys.readouterr().err


def test_named_images_keep_the_brightness_of_sixteen_bits(tmp_path, make_case):
    fields = _fields(make_case(queries=1, database=1))
    Image.fromarray(np.array([[0, 0x4000, 0xFFFF]], np.uint16)).save(tmp_path / "deep.png")
    names = {"query_names": ["deep.png"], "database_names": ["deep.png"]}
    images = named_images(make_codes(**fields, **names), tmp_path)
    assert images("query", 0)[0, :, 0].tolist() == [0, 64, 255]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--device", "foo"], "device 'foo'"),
        (["--device", "meta"], "device 'meta'"),
        (["--device", "cuda:99"], "device 'cuda:99'"),
        (["--out", "main.py"], "--out main.py is a file"),
        (["--out", "main.py/x"], "main.py"),
    ],
)
def test_options_that_cannot_be_met_are_one_line(tmp_path, make_case, capsys, options, says):
    save_codes(tmp_path / "codes.npz", **_fields(make_case()))
    assert main([str(tmp_path / "codes.npz"), *options]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and says in message and message.count("\n") == 1


def test_an_error_of_one_of_several_files_names_it(tmp_path, make_case, capsys):
    fields = _fields(make_case())
    save_codes(tmp_path / "good.npz", **fields)
    save_codes(tmp_path / "bad.npz", **fields | {"query_labels": fields["query_labels"] - 9})
    assert main([str(tmp_path / "good.npz"), str(tmp_path / "bad.npz")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: bad: query_labels hold -")
