"""`python -m search.page`: how it starts, how it ends, and what it says of mistakes."""

import http.client
import re
import signal
import socket
import subprocess
import sys

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("faiss")

from page_client import made_index

from search.page import main


@pytest.fixture
def index(tmp_path):
    made_index(tmp_path, 8)
    return str(tmp_path / "index")


def error_of(capsys, *arguments):
    """The one line of a mistake."""
    assert main(list(arguments)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def test_it_says_one_line_answers_and_ends_at_a_signal(index):
    command = [sys.executable, "-m", "search.page", index, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        found = re.fullmatch(
            r"http://127\.0\.0\.1:(\d+)/ shows index, 8 images of 24 bits; Ctrl-C ends it\n", line
        )
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
        connection.request("GET", "/")  # and stays open
        assert connection.getresponse().status == 200
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, rest) == (0, "")
    (why,) = errors.splitlines()
    assert why.startswith("index: pictures cannot be coded: ")


def test_a_port_in_use_is_one_line(index, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        line = error_of(capsys, index, "--port", port)
    assert f"port {port}" in line
    assert "another --port" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid"),
        (["--port", "99999"], "--port is 99999"),
        (["--port", "-1"], "--port is -1"),
        (["--max_megabytes", "0"], "expected 1 to"),
        (["--checkpoint", "nowhere", "--port", "0"], "nowhere"),
    ],
)
def test_mistakes_are_one_line(index, capsys, arguments, words):
    assert words in error_of(capsys, index, *arguments)


def test_no_index_is_one_line(tmp_path, index, capsys):
    assert "no index here" in error_of(capsys, str(tmp_path / "none"), "--port", "0")
    assert "no index here" in error_of(capsys, index, str(tmp_path / "none"), "--port", "0")


@pytest.mark.parametrize("name", ["uvicorn", "fastapi"])
def test_a_missing_package_is_one_line(index, capsys, monkeypatch, name):
    for module in [each for each in sys.modules if each.startswith("search.page_")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    line = error_of(capsys, index, "--port", "0")
    assert name in line
    assert "requirements-search.txt" in line


def test_wrong_usage_is_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
