"""`python -m search.index` and `python -m search.query`, from pictures to pictures."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from engine.encode import main as encode_command
from main import main as train
from retrieval.codes import load_codes
from search.coder import code_picture, picture_path, query_coder
from search.index import main as index_command
from search.index import open_index
from search.query import main as query_command

pytest.importorskip("faiss")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one epoch over the digits."""
    folder = tmp_path_factory.mktemp("run") / "stage_1"
    options = [f"training_opt.log_dir={folder}", "training_opt.num_epochs=1",
               "training_opt.device=cpu"]  # fmt: skip
    patch = pytest.MonkeyPatch()
    patch.setattr("engine.evaluate.write_results", lambda run, scored: None)
    status = train(["--config", "config/Digits_LT/stage_1.py", "--opts", *options])
    patch.undo()
    assert status == 0
    return folder


@pytest.fixture(scope="module")
def pictures(run, tmp_path_factory):
    """Some of its database images as files, and their codes in the run, by path."""
    folder = tmp_path_factory.mktemp("pictures")
    codes, digits = load_codes(run / "codes.npz"), load_digits()
    expected = {}
    for row in range(0, 300, 10):
        number = int(codes.database_names[row].split("/")[1])
        grey = np.rint(digits.images[number] * (255 / 16)).astype(np.uint8)
        path = folder / "train" / str(digits.target[number]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey).save(path)
        expected[path.relative_to(folder).as_posix()] = codes.database_codes[row]
    return folder, expected


@pytest.fixture
def built(run, pictures, tmp_path):
    """An index of the pictures."""
    command = ["build", "--checkpoint", str(run), str(pictures[0]), "-o", str(tmp_path / "index")]
    assert index_command(command) == 0
    return tmp_path / "index"


def error_of(capsys):
    """The one line of a mistake."""
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


def test_built_from_pictures_it_holds_the_codes_of_the_runs_own_test(built, pictures):
    index, expected = open_index(built), pictures[1]
    ids = index.select()
    rows = index.rows(ids).to_pylist()
    assert sorted(row["path"] for row in rows) == sorted(expected)
    for row, code in zip(rows, index.codes(ids), strict=True):
        assert (code == expected[row["path"]]).all()
        assert (row["split"], row["label"], row["width"], row["height"]) == (
            "train", row["path"].split("/")[1], 8, 8,
        )  # fmt: skip
    assert index.coding.class_names == tuple("0123456789")
    assert sum(index.coding.class_counts) > 0


def test_built_from_the_run_it_names_the_same_model(run, built, tmp_path, capsys):
    assert index_command(["build", str(run), "-o", str(tmp_path / "other"), "--kind", "mih"]) == 0
    index = open_index(tmp_path / "other")
    codes = load_codes(run / "codes.npz")
    assert len(index) == len(codes.database_codes) + len(codes.query_codes)
    assert index.coding.model_digest == open_index(built).coding.model_digest
    assert index.info()["kind"] == "mih"


def test_built_from_a_run_it_can_hold_the_runs_pictures(run, tmp_path, capsys):
    place = tmp_path / "index"
    assert index_command(["build", str(run), "-o", str(place), "--pictures"]) == 0
    index = open_index(place)
    digits = load_digits()
    for row in index.rows(index.select(limit=20)).to_pylist():
        number = int(row["path"].removesuffix(".png").split("/")[1])
        with Image.open(picture_path(index, row["path"])) as image:
            pixels = np.asarray(image)
        assert (pixels[:, :, 0] == np.rint(digits.images[number] * (255 / 16))).all()
        assert row["label"] == str(digits.target[number])
    assert index_command(["compact", str(place)]) == 0
    assert len(list((place / "pictures").rglob("*.png"))) == len(index)
    other = ["build", str(run / "codes.npz"), "-o", str(tmp_path / "other"), "--pictures"]
    assert index_command([*other, "--image_root", "."]) == 2
    assert "held in memory" in error_of(capsys)


def test_in_the_lance_store_the_same_commands_work(run, built, pictures, tmp_path, capsys):
    pytest.importorskip("lancedb")
    place, picture = str(tmp_path / "lance"), str(next(pictures[0].rglob("*.png")))
    command = ["build", "--checkpoint", str(run), str(pictures[0]), "-o", place]
    assert index_command([*command, "--store", "lance"]) == 0
    assert index_command(["verify", place]) == 0
    tables = []
    for index in (place, str(built)):
        capsys.readouterr()
        assert query_command([index, picture, "-k", "6", "--filter", "width = 8"]) == 0
        tables.append([line for line in capsys.readouterr().out.splitlines() if "train/" in line])
    assert len(tables[0]) >= 6
    assert tables[0][-6:] == tables[1][-6:]
    assert index_command(["remove", place, "--ids", "0"]) == 0
    assert len(open_index(place)) == len(open_index(built)) - 1


def test_added_again_a_picture_is_passed_over(built, pictures, tmp_path, capsys):
    new = tmp_path / "more" / "cat"
    new.mkdir(parents=True)
    shutil.copy(next(pictures[0].rglob("*.png")), new / "1.png")
    (new / "bad.png").write_text("no picture")
    before = len(open_index(built))
    assert index_command(["add", str(built), str(pictures[0])]) == 0
    assert len(open_index(built)) == before
    capsys.readouterr()
    assert index_command(["add", str(built), str(tmp_path / "more")]) == 1
    assert "bad.png" in capsys.readouterr().err
    index = open_index(built)
    assert len(index) == before + 1
    (row,) = index.rows(index.select("label = 'cat'")).to_pylist()
    assert row["path"] == str(new / "1.png")


def test_built_from_a_file_of_codes_it_is_the_same_index(run, built, pictures, tmp_path, capsys):
    codes = tmp_path / "codes.npz"
    command = ["--checkpoint", str(run), str(pictures[0]), "-o", str(codes), "--device", "cpu"]
    assert encode_command(command) == 0
    root = ["--image_root", str(pictures[0])]
    other = str(tmp_path / "other")
    assert index_command(["build", str(codes), "-o", other, *root]) == 0
    index, same = open_index(other), open_index(built)
    assert index.coding.model_digest == same.coding.model_digest
    assert index.rows(index.select()).equals(same.rows(same.select()))
    assert (index.codes(index.select()) == same.codes(same.select())).all()
    assert query_command([other, str(next(pictures[0].rglob("*.png")))]) == 2
    assert "give --checkpoint" in error_of(capsys)
    assert index_command(["add", other, str(codes)]) == 0
    assert len(open_index(other)) == len(same)


def test_remove_verify_info_and_compact(built, capsys):
    assert index_command(["remove", str(built), "--filter", "label IN ('1', '2')"]) == 0
    left = open_index(built).select()
    assert index_command(["remove", str(built), "--ids", *map(str, left[:2])]) == 0
    assert open_index(built).select().tolist() == left[2:].tolist()
    assert index_command(["compact", str(built)]) == 0
    assert index_command(["verify", str(built)]) == 0
    capsys.readouterr()
    assert index_command(["info", str(built)]) == 0
    shown = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    index = open_index(built)
    assert int(shown["items"]) == len(index)
    assert shown["code_length"] == "32"
    assert shown["removed"] == "0"
    assert not len(index.select("label = '1'"))
    (built / "segments").rename(built / "moved")
    assert index_command(["verify", str(built)]) == 2
    assert "missing or damaged" in error_of(capsys)


def test_a_query_prints_a_table_and_draws_the_grid(built, pictures, tmp_path, capsys):
    own = sorted(pictures[0].rglob("*.png"))[:2]
    grid = tmp_path / "grid.png"
    command = ["-k", "4", "--filter", "split = 'train'", "--grid", str(grid)]
    assert query_command([str(built), *map(str, own), *command]) == 0
    out = capsys.readouterr().out
    for path in own:
        assert re.search(rf"{path}: coded in \d+ ms", out)
    assert len(re.findall(r"^ +[1-4] +\d+ ", out, re.MULTILINE)) == 8
    assert f"{len(open_index(built))} codes searched" in out
    with Image.open(grid) as image:
        assert image.width > 500


def test_a_picture_alone_has_the_code_it_has_among_others_but_for_rounding(built, pictures):
    index = open_index(built)
    coder = query_coder(index.coding)
    wrong = [
        int(np.bitwise_count(code_picture(coder, pictures[0] / path)[0] ^ code).sum())
        for path, code in pictures[1].items()
    ]
    assert sum(wrong) <= 2  # of 960 bits


def test_mistakes_are_one_line(built, run, pictures, tmp_path, capsys):
    picture = str(next(pictures[0].rglob("*.png")))
    other = tmp_path / "other"
    assert index_command(["build", str(run), "-o", str(built)]) == 2
    assert "not empty" in error_of(capsys)
    assert index_command(["build", str(pictures[0]), "-o", str(other)]) == 2
    assert "--checkpoint" in error_of(capsys)
    assert index_command(["info", str(other)]) == 2
    assert "no index here" in error_of(capsys)
    assert query_command([str(built), picture, "--filter", "label = 1"]) == 2
    assert "text in single quotes" in error_of(capsys)
    assert query_command([str(built), str(tmp_path / "none.png")]) == 2
    assert "none.png" in error_of(capsys)
    assert query_command([str(built), picture, "-k", "0"]) == 2
    assert "at least 1" in error_of(capsys)


def test_a_query_by_another_model_is_refused(built, run, pictures, tmp_path, capsys):
    options = [f"training_opt.log_dir={tmp_path / 'other'}", "training_opt.num_epochs=1",
               "training_opt.device=cpu", "training_opt.seed=7"]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.evaluate.write_results", lambda run, scored: None)
        assert train(["--config", "config/Digits_LT/stage_1.py", "--opts", *options]) == 0
    picture = str(next(pictures[0].rglob("*.png")))
    command = [str(built), picture, "--checkpoint", str(tmp_path / "other")]
    assert query_command(command) == 2
    assert "but the index holds codes of" in error_of(capsys)
