import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.text_lines import image_name, read_lines
from utils.errors import UserError

WRITINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
}
LINE = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\ufeff")
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("lists") / "list.txt"


@given(
    lines=st.lists(LINE),
    margins=st.sampled_from(["", " ", "\t", " \t "]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    writing=st.sampled_from(sorted(WRITINGS)),
)
def test_lines_come_back_however_an_editor_wrote_them(path, lines, margins, end, writing):
    text = end.join(f"{margins}{line}{margins}" for line in lines)
    path.write_bytes(WRITINGS[writing] + text.encode(writing))
    expected = [(n, line.strip()) for n, line in enumerate(lines, start=1) if line.strip()]
    assert read_lines(path, "list", "lines") == expected


@given(st.binary(max_size=60))
def test_any_bytes_are_lines_or_refused_by_file_and_line(path, content):
    path.write_bytes(content)
    try:
        lines = read_lines(path, "list", "lines")
    except UserError as error:
        assert str(error).startswith(f"{path}, line ") and "save it as UTF-8" in str(error)
    else:
        assert all(line == line.strip() and "\0" not in line and line for _, line in lines)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"good\nb\xe9te\n", 2),  # Latin-1
        ("a 1\r\nb 2\r\n".encode("utf-16-le"), 1),  # without a mark
        (b"\xff\xfea\0\n\0\xd8", 2),
        (b"one\r\ntwo\r\nthr\0ee", 3),
    ],
)
def test_the_line_of_what_is_no_text_is_named(path, content, line):
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"list.txt, line {line}: list .*save it as UTF-8"):
        read_lines(path, "list", "lines")


def test_marks_of_joined_files_are_taken_off(path):
    path.write_bytes(b"\xef\xbb\xbfa.png 0\n\xef\xbb\xbfb.png 1\n")
    assert [line for _, line in read_lines(path, "list", "lines")] == ["a.png 0", "b.png 1"]


def test_separators_within_a_name_do_not_end_its_line(path):
    path.write_text("a\u2028b\x0bc\x85d.png 3\n")
    assert read_lines(path, "list", "lines") == [(1, "a\u2028b\x0bc\x85d.png 3")]


def test_unreadable_files_are_named(tmp_path):
    for path in (tmp_path / "absent.txt", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match=r"list .* cannot be read") as error:
            read_lines(path, "list", "lines")
        assert str(path) in str(error.value)


@pytest.mark.parametrize("line", ["a/b.png", "./a/b.png", "a\\b.png", ".\\a//b.png"])
def test_image_names_have_one_form(line):
    assert image_name(line) == "a/b.png"
