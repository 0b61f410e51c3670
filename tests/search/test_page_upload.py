"""Pictures on their way to the page: how large, how slow, how many."""

import json
import socket
import time

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("faiss")

from page_client import made_index, served

from search import page_upload
from search.page_state import Page


@pytest.fixture
def page(tmp_path):
    made_index(tmp_path, 8)
    with Page([str(tmp_path / "index")], max_bytes=1 << 20) as page:
        yield page


@pytest.fixture
def client(page):
    with served(page) as client:
        yield client


def raw(client, content, wait=True):
    """The answer to some bytes."""
    with socket.create_connection(("127.0.0.1", client.port), 10) as connection:
        connection.sendall(content)
        found = b""
        while wait and (part := connection.recv(1 << 16)):
            found += part
    return found


def head(*fields):
    return "\r\n".join(["POST /api/search HTTP/1.1", "Host: localhost", *fields, "", ""]).encode()


def left(page):
    """Files of uploads that are there still."""
    for _ in range(200):
        if not page.uploads.running:
            break
        time.sleep(0.01)
    assert page.uploads.running == 0
    return list(page.uploads.folder.iterdir())


def test_too_large_by_its_length_is_refused_unread(client, page):
    answer = raw(client, head(f"Content-Length: {(1 << 20) + 1}"))
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"1 MiB" in answer
    assert not left(page)


def test_too_large_in_chunks_is_refused(client, page):
    chunk = b"80000\r\n" + b"\0" * (1 << 19) + b"\r\n"
    answer = raw(client, head("Transfer-Encoding: chunked") + chunk * 2 + b"1\r\n\0\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    assert not left(page)


def test_too_slow_is_refused(client, page, monkeypatch):
    monkeypatch.setattr(page.uploads, "longest", 0.2)
    answer = raw(client, head("Content-Length: 1000") + b"x")
    assert answer.startswith(b"HTTP/1.1 408")
    assert not left(page)


def test_broken_off_leaves_nothing(client, page, capfd):
    raw(client, head("Content-Length: 1000") + b"x", wait=False)
    assert not left(page)
    assert client.get("/api/info")
    assert "Traceback" not in capfd.readouterr().err


def test_empty_is_refused(client):
    assert client.error("POST", "/api/search", b"") == (
        400, "no picture came; send the file as the request's body",
    )  # fmt: skip


def test_more_at_once_than_the_page_takes_are_asked_to_come_again(client, page, monkeypatch):
    monkeypatch.setattr(page_upload, "MOST_AT_ONCE", 1)
    with socket.create_connection(("127.0.0.1", client.port), 10) as first:
        first.sendall(head("Content-Length: 1000") + b"x")
        while not page.uploads.running:
            time.sleep(0.01)
        status, found, body = client.ask("POST", "/api/search", b"y")
        assert (status, found["retry-after"]) == (503, "1")
        assert "try again" in json.loads(body)["error"]
    assert not left(page)
