"""What the page answers: over the wire, against the index itself."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("faiss")

from drawn_codes import draw_codes
from page_client import COUNTS, made_index, served

from search import page_side
from search.coder import code_picture, picture_path, query_coder
from search.opening import create_index, open_index
from search.page_state import Page
from search.rows import make_rows
from search.store import Coding


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A page of one index without a model."""
    index = made_index(tmp_path_factory.mktemp("made"))
    with Page([str(index.folder)]) as page, served(page, ["own.example.org"]) as client:
        yield index, client


@pytest.fixture(scope="module")
def two(digits, tmp_path_factory):
    """A page of the digits twice: all of them, and the first 100 under another name."""
    whole, folder = open_index(digits), tmp_path_factory.mktemp("second") / "index"
    second, ids = create_index(folder, whole.coding), np.arange(100)
    second.add(whole.codes(ids), whole.rows(ids).drop_columns(["id"]), whole.coding.model_digest)
    with Page([str(digits), str(folder)]) as page, served(page) as client:
        yield whole, second, client


@pytest.fixture(scope="module")
def coder(digits):
    return query_coder(open_index(digits).coding)


def test_info_says_what_is_shown(made):
    found = made[1].get("/api/info")
    (side,) = found["sides"]
    assert (side["items"], side["code_length"], side["splits"]) == (200, 24, ["query", "database"])
    assert [each["name"] for each in side["classes"]] == list(COUNTS)
    assert [each["group"] for each in side["classes"]] == ["many", "medium", "medium", "few"]
    assert "--checkpoint" in side["no_coder"]


def test_a_search_by_id_is_the_indexs_own(made):
    index, client = made
    found = client.get("/api/search?id=7&k=20&split=database")
    hits = index.search(index.codes([7]), 21, "split = 'database'")
    wanted = [item for item in hits.ids[0].tolist() if item != 7][:20]
    items = found["sides"][0]["items"]
    assert [item["id"] for item in items] == wanted
    own = index.rows([7])["label"][0].as_py()
    assert [item["right"] for item in items] == [item["label"] == own for item in items]
    assert found["query"]["label"] == own


def test_a_search_by_code_is_the_indexs_own_and_judges_nothing(made):
    index, client = made
    code = draw_codes(np.random.default_rng(9), 1, 24)
    items = client.get(f"/api/search?code={code.tobytes().hex()}&k=5")["sides"][0]["items"]
    hits = index.search(code, 5)
    assert [(item["id"], item["distance"]) for item in items] == list(
        zip(hits.ids[0].tolist(), hits.distances[0].tolist(), strict=True)
    )
    assert not any("right" in item for item in items)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/api/search", "give an id or a code"),
        ("/api/search?id=900", "no id 900"),
        ("/api/search?id=x", "id is 'x'"),
        ("/api/search?id=99999999999999999999", "less than or equal"),
        ("/api/search?id=1&k=0", "k is '0'"),
        ("/api/search?id=1&k=201", "200"),
        ("/api/search?id=1&where=label+%3D", "ends where text"),
        ("/api/search?id=1&where=label+%3D+1", "text in single quotes"),
        ("/api/search?id=1&where=%00", "cannot read it"),
        ("/api/search?code=00", "1 bytes"),
        ("/api/search?code=zz", "not hexadecimal"),
        ("/api/search?code=000000,000000", "2 codes came for 1"),
        ("/api/browse?where=drop+table", "'drop'"),
        ("/api/browse?offset=-1", "offset is '-1'"),
    ],
)
def test_mistakes_are_one_line(made, target, words):
    status, line = made[1].error("GET", target)
    assert status == 400
    assert words in line


@pytest.mark.parametrize(
    "target",
    [
        "/api/nothing",
        "/assets/../page.py",
        "/assets/..%2fpage.py",
        "/assets/page.py",
        "/etc/passwd",
        "/picture/0/900",
        "/picture/1/0",
        "/api/browse?side=1",
        "/picture/0/%2e%2e%2f0",
    ],
)
def test_what_is_not_there_is_not_found(made, target):
    assert made[1].error("GET", target)[0] in (400, 404)


def test_a_picture_without_a_model_is_refused_with_the_reason(made):
    status, line = made[1].error("POST", "/api/search", png((1, 2, 3)))
    assert (status, "does not say which model" in line) == (400, True)


def test_pictures_come_as_they_are_and_may_be_kept_a_while(made):
    status, headers, body = made[1].ask("GET", "/picture/0/5")
    assert (status, headers["content-type"]) == (200, "image/png")
    assert "max-age" in headers["cache-control"]
    assert body.startswith(b"\x89PNG")


def test_files_of_the_page_have_their_kinds_and_need_not_come_twice(made):
    client = made[1]
    for name, kind in (
        ("/", "text/html"),
        ("/assets/main.js", "text/javascript"),
        ("/assets/page.css", "text/css"),
        ("/assets/icon.svg", "image/svg+xml"),
    ):
        status, headers, body = client.ask("GET", name)
        assert (status, headers["content-type"].split(";")[0]) == (200, kind)
        assert b"://" not in body.replace(b"http://www.w3.org", b"")  # nothing from elsewhere
        again = client.ask("GET", name, headers={"If-None-Match": headers["etag"]})
        assert (again[0], again[2]) == (304, b"")


def test_the_guard_stands_before_it(made):
    client = made[1]
    assert client.error("GET", "/api/info", headers={"Host": "evil.example"})[0] == 421
    assert client.ask("GET", "/api/info", headers={"Host": "own.example.org"})[0] == 200
    assert client.error("POST", "/api/search", b"x", {"Origin": "http://evil.example"})[0] == 403


def test_the_curve_comes_when_it_is_computed(made):
    while (found := made[1].get("/api/curve"))["state"] == "computing":
        pass
    assert found["state"] == "ready"
    assert [each["count"] for each in found["classes"]] == list(COUNTS.values())


def png(colour, size=(20, 20)):
    import io

    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def test_an_uploaded_picture_has_the_code_that_a_query_gives_it(two, coder):
    whole, second, client = two
    for item in (3, 1500):
        path = picture_path(whole, whole.rows([item])["path"][0].as_py())
        status, _, body = client.ask("POST", "/api/search?k=7", path.read_bytes())
        found = json.loads(body)
        code = code_picture(coder, path)
        assert status == 200
        assert found["query"]["code"] == f"{code.tobytes().hex()},{code.tobytes().hex()}"
        for index, side in zip((whole, second), found["sides"], strict=True):
            hits = index.search(code, 7)
            assert [each["id"] for each in side["items"]] == hits.ids[0].tolist()
        again = client.get(f"/api/search?k=7&code={found['query']['code']}")
        assert [side["items"] for side in again["sides"]] == [
            side["items"] for side in found["sides"]
        ]


def test_many_clients_at_once_get_each_their_own_answer(two, coder):
    whole, _, client = two
    items = list(range(0, 1600, 40))
    paths = [picture_path(whole, row["path"]) for row in whole.rows(items).to_pylist()]
    with ThreadPoolExecutor(20) as pool:
        answers = list(
            pool.map(lambda path: client.ask("POST", "/api/search?k=1", path.read_bytes()), paths)
        )
    for path, (status, _, body) in zip(paths, answers, strict=True):
        assert status == 200
        own = code_picture(coder, path).tobytes().hex()
        assert json.loads(body)["query"]["code"] == f"{own},{own}"


def test_the_second_index_is_asked_with_its_own_code_or_codes_the_picture(two, coder):
    whole, second, client = two
    held = client.get("/api/search?id=40&k=3")["sides"]
    assert 40 not in [item["id"] for item in held[1]["items"]]
    new = client.get("/api/search?id=700&k=3")["sides"]
    path = picture_path(whole, whole.rows([700])["path"][0].as_py())
    hits = second.search(code_picture(coder, path), 3)
    assert [item["id"] for item in new[1]["items"]] == hits.ids[0].tolist()
    assert all("right" in item for item in new[1]["items"])
    back = client.get("/api/search?id=40&side=1&k=3")
    assert back["query"]["side"] == 1
    assert [side["items"] for side in back["sides"]] == [side["items"] for side in held]


def test_an_index_that_cannot_be_asked_says_why_beside_the_other(digits, tmp_path):
    made_index(tmp_path, 10)
    with Page([str(digits), str(tmp_path / "index")]) as page, served(page) as client:
        found = client.get("/api/search?id=40&k=3")
        assert len(found["sides"][0]["items"]) == 3
        assert "does not hold the image" in found["sides"][1]["error"]
        assert json.loads(client.ask("POST", "/api/search", png((9, 9, 9)))[2])["sides"][1]["error"]


@pytest.mark.parametrize("content", [b"text", png((1, 2, 3))[:40], png((1, 2, 3))[:-30]])
def test_a_broken_picture_is_refused_without_saying_where_it_lay(two, content):
    status, line = two[2].error("POST", "/api/search", content)
    assert status == 400
    assert "picture" in line
    assert "search_page_" not in line


def test_a_picture_is_not_looked_at_when_the_filter_is_wrong(two):
    status, line = two[2].error("POST", "/api/search?where=x", b"no picture")
    assert (status, "'x'" in line) == (400, True)


def test_what_is_added_meanwhile_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(page_side, "REFRESHED", 0.0)
    index = made_index(tmp_path, 10)
    with Page([str(tmp_path / "index")]) as page, served(page) as client:
        assert client.error("GET", "/api/search?id=10")[0] == 400
        index.add(index.codes([4]), make_rows(1, label=["new"]))
        found = client.get("/api/search?id=10&k=1")
        assert (found["query"]["label"], found["sides"][0]["items"][0]["distance"]) == ("new", 0)


def test_an_index_that_is_gone_is_said_and_the_page_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(page_side, "REFRESHED", 0.0)
    made_index(tmp_path, 10)
    with Page([str(tmp_path / "index")]) as page, served(page) as client:
        (tmp_path / "index").rename(tmp_path / "moved")
        status, line = client.error("GET", "/api/search?id=1")
        assert (status, "cannot be read" in line) == (503, True)
        (tmp_path / "moved").rename(tmp_path / "index")
        assert client.get("/api/search?id=1")


def test_an_empty_index_is_shown(tmp_path):
    create_index(tmp_path / "index", Coding(16))
    with Page([str(tmp_path / "index")]) as page, served(page) as client:
        assert client.get("/api/browse") == {"total": 0, "items": []}
        assert client.get("/api/search?code=0000")["sides"][0]["items"] == []
        assert client.get("/api/info")["sides"][0]["classes"] == []


def test_a_failure_of_the_page_is_a_line_and_tells_nothing(made, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("search.page_app.search_by_id", fail)
    status, line = made[1].error("GET", "/api/search?id=1")
    assert (status, "secret" in line) == (500, False)
