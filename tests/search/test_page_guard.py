"""Who may ask the page, and what its answers carry."""

import asyncio

import pytest

from search.page_guard import HEADERS, Guard


def ask(guard, headers, method="GET", path="/api/info"):
    """Status, headers and body of the answer to a request."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "method": method, "path": path, "scheme": "http", "headers": raw}
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


async def answer(scope, receive, send):
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"own")]}
    )
    await send({"type": "http.response.body", "body": b"fine"})


HOST = ("host", "127.0.0.1:8020")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8020",
        "localhost",
        "LOCALHOST:1",
        "[::1]:8020",
        "10.1.2.3:80",
        "a.localhost:8020",
        "own.example.org:8020",
    ],
)
def test_the_page_answers_to_its_names(host):
    assert ask(Guard(answer, ["Own.example.org"]), [("host", host)])[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        "[::1",
        "127.0.0.1:x@evil.example",
        "a b",
        "evil.example:8020",
        "1.2.3.4.5",
        "own.example.org.evil",
        "\xff",
    ],
)
def test_the_page_answers_to_no_other_name(host):
    assert ask(Guard(answer, ["own.example.org"]), [("host", host)])[0] == 421


def test_a_request_names_one_host():
    assert ask(Guard(answer), [])[0] == 421
    assert ask(Guard(answer), [HOST, HOST])[0] == 421


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [
        ("origin", "http://127.0.0.1:8020", 200),
        ("origin", "http://127.0.0.1:9000", 403),
        ("origin", "https://127.0.0.1:8020", 403),
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
        ("sec-fetch-site", "same-origin", 200),
        ("sec-fetch-site", "none", 200),
        ("sec-fetch-site", "same-site", 403),
        ("sec-fetch-site", "cross-site", 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_another_site_sends_is_refused(field, value, status, method):
    assert ask(Guard(answer), [HOST, (field, value)], method)[0] == status


def test_a_link_on_another_site_may_lead_to_the_page_itself():
    assert ask(Guard(answer), [HOST, ("sec-fetch-site", "cross-site")], path="/")[0] == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH"])
def test_other_methods_are_refused(method):
    assert ask(Guard(answer), [HOST], method)[0] == 405


@pytest.mark.parametrize("field", [("content-length", "5"), ("transfer-encoding", "chunked")])
def test_only_a_post_brings_a_body(field):
    assert ask(Guard(answer), [HOST, field])[0] == 400
    assert ask(Guard(answer), [HOST, field], "POST")[0] == 200
    assert ask(Guard(answer), [HOST, ("content-length", "0")])[0] == 200


def test_every_answer_carries_the_headers_once():
    for headers in ([HOST], [("host", "evil.example")]):
        _, found, _ = ask(Guard(answer), headers)
        assert set(HEADERS) <= {name.decode() for name in found}
    assert ask(Guard(answer), [HOST])[1][b"x-frame-options"] == b"own"


def test_a_refusal_is_a_line_and_ends_the_connection():
    _, headers, body = ask(Guard(answer), [("host", "evil.example")])
    assert body.startswith(b'{"error": "')
    assert int(headers[b"content-length"]) == len(body)
    assert headers[b"connection"] == b"close"


def test_too_many_at_once_are_asked_to_come_again():
    started = asyncio.Event()
    inner = []

    async def slow(scope, receive, send):
        if not started.is_set():
            started.set()
            inner.append(await asyncio.to_thread(ask, guard, [HOST]))
        await answer(scope, receive, send)

    guard = Guard(slow, most=1)
    assert ask(guard, [HOST])[0] == 200
    ((status, headers, _),) = inner
    assert (status, headers[b"retry-after"]) == (503, b"1")
    assert ask(guard, [HOST])[0] == 200


def test_a_failure_gives_the_place_back():
    async def fail(scope, receive, send):
        raise ZeroDivisionError

    guard = Guard(fail, most=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            ask(guard, [HOST])
