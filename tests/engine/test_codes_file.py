"""However often coding is interrupted and files change, the file of codes is that of one go."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.codes_file import CodesFile
from engine.image_list import ImageFiles
from retrieval.image_codes import load_image_codes
from utils.errors import UserError

MADE_WITH = {"device": "cpu", "batch_size": 32}
NAMES = [f"{letter}.png" for letter in "abcdefg"]


def _file(path, digest="ab", **made_with):
    return CodesFile(path, 16, digest, {**MADE_WITH, **made_with})


def _code(name, row):
    """Two bytes that stand for a file's code: they change with the file."""
    size, mtime = row
    return [ord(name[0]), (size * 7 + mtime) % 256]


def _session(path, files, parts, sizes):
    """Code what is missing, in parts of the sizes given, at most so many; then finish or stop."""
    output = _file(path)
    with output.opened():
        names, coded = output.missing(files), []
        for size in sizes[:parts]:
            part, names = names[:size], names[size:]
            if part:
                codes = np.array([_code(name, files.rows[name]) for name in part], dtype=np.uint8)
                output.keep(files, part, codes)
                coded += part
        finished = not names
        if finished:
            output.finish(files)
    return coded, finished


@given(
    st.lists(
        st.tuples(
            st.dictionaries(
                st.sampled_from(NAMES), st.tuples(st.integers(0, 2), st.integers(0, 2))
            ),
            st.integers(0, 3),
            st.lists(st.integers(1, 4), min_size=3, max_size=3),
        ),
        max_size=6,
    )
)
@settings(max_examples=40)
def test_sessions_code_what_is_missing_and_end_in_the_codes_of_all_files(sessions):
    with tempfile.TemporaryDirectory() as place:
        path, known = Path(place) / "c.npz", {}
        for rows, parts, sizes in sessions:
            files = ImageFiles(Path(place), rows)
            coded, finished = _session(path, files, parts, sizes)
            assert all(known.get(name) != rows[name] for name in coded)  # nothing twice
            known |= {name: rows[name] for name in coded}
            if finished and rows:
                found = load_image_codes(path)
                assert found.names.tolist() == list(rows)
                expected = [_code(name, row) for name, row in rows.items()]
                assert found.codes.tolist() == expected
                assert {path.name for path in Path(place).iterdir()} == {"c.npz"}
                known = dict(rows)


def _unfinished(tmp_path):
    files = ImageFiles(tmp_path, dict.fromkeys(NAMES, (1, 1)))
    _session(tmp_path / "c.npz", files, 1, [2])
    return tmp_path / "c.npz"


@pytest.mark.parametrize(
    ("digest", "made_with", "said"),
    [
        ("cd", {}, "another model (ab, now cd)"),
        ("ab", {"batch_size": 8}, "another batch_size (32, now 8)"),
        ("ab", {"bf16": True}, "another bf16 (None, now True)"),
    ],
)
def test_parts_that_were_made_otherwise_are_refused_and_kept(digest, made_with, said, tmp_path):
    path = _unfinished(tmp_path)
    output = _file(path, digest, **made_with)
    with pytest.raises(UserError) as caught, output.opened():
        pass
    assert said in str(caught.value) and "\n" not in str(caught.value)
    files = ImageFiles(tmp_path, dict.fromkeys(NAMES, (1, 1)))
    again = _file(path)
    with again.opened():
        assert again.missing(files) == NAMES[2:]


@pytest.mark.parametrize(
    ("digest", "made_with", "said"),
    [
        ("cd", {}, "holds codes of another model (ab, now cd)"),
        ("ab", {"folder": "x"}, "holds codes of another folder (None, now x)"),
    ],
)
def test_finished_codes_that_were_made_otherwise_are_not_written_over(
    digest, made_with, said, tmp_path
):
    path, files = tmp_path / "c.npz", ImageFiles(tmp_path, dict.fromkeys(NAMES, (1, 1)))
    assert _session(path, files, 3, [3, 3, 3]) == (NAMES, True)
    before = path.read_bytes()
    with pytest.raises(UserError) as caught, _file(path, digest, **made_with).opened():
        pass
    assert said in str(caught.value) and "remove it" in str(caught.value)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_what_is_no_file_of_codes_is_not_written_over(tmp_path):
    (tmp_path / "mine.npz").write_text("something else")
    (tmp_path / "folder.npz").mkdir()
    for name in ("mine.npz", "folder.npz"):
        with pytest.raises(UserError) as caught, _file(tmp_path / name).opened():
            pass
        assert f"{name} is there already and holds no codes of images" in str(caught.value)
    assert (tmp_path / "mine.npz").read_text() == "something else"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_place_that_cannot_be_written_is_not_said_to_keep_codes(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as caught, _file(tmp_path / "file" / "c.npz").opened():
        pass
    assert "Not a directory" in str(caught.value) and "kept" not in str(caught.value)


def test_nothing_done_leaves_nothing(tmp_path):
    with _file(tmp_path / "c.npz").opened():
        pass
    assert not any(tmp_path.iterdir())
