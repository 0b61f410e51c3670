import numpy as np
import pytest
from drawn_codes import numbered_rows

from search import structures
from search.index import create_index, open_index
from search.rows import make_rows
from search.store import Coding

faiss = pytest.importorskip("faiss")
ITEMS = 12_000


@pytest.fixture(scope="module")
def codes():
    """64-bit codes around 200 centres, an eighth of the bits flipped."""
    rng = np.random.default_rng(1)
    bits = (rng.random((200, 64)) < 0.5)[rng.integers(0, 200, ITEMS + 20)]
    return np.packbits(bits ^ (rng.random(bits.shape) < 0.125), axis=1, bitorder="little")


@pytest.fixture(scope="module", params=["ivf", "hnsw", "mih"])
def place(request, tmp_path_factory, codes):
    """An index of each kind."""
    folder = tmp_path_factory.mktemp("structures") / request.param
    index = create_index(folder, Coding(64), kind=request.param)
    index.add(codes[:ITEMS], make_rows(ITEMS))
    assert index.info()["scanned_items"] == ITEMS
    index.compact()
    assert index.info()["scanned_items"] == 0
    return folder


def near_enough(found, exact, distance):
    """Share of the results that are as near as the k-th of the exact search."""
    return ((found.distances >= 0) & (found.distances <= distance)).mean()


def test_more_effort_finds_what_the_scan_finds(place, codes):
    index = open_index(place)
    query, effort = codes[ITEMS:], {"ivf": 10_000, "hnsw": 2000, "mih": 4}[place.name]
    exact = index.search(query, 10, exact=True)
    found = index.search(query, 10, effort=effort)
    assert near_enough(found, exact, exact.distances[:, -1:]) > 0.99
    assert (np.diff(found.distances) >= 0).all()
    ties = np.diff(found.distances) == 0
    assert (np.diff(found.ids)[ties] > 0).all()
    quick = index.search(query, 10, effort=1)
    assert near_enough(quick, exact, exact.distances[:, -1:]) <= near_enough(
        found, exact, exact.distances[:, -1:]
    )


def test_a_structure_lasts_and_is_verified_and_may_be_thrown_away(place, codes):
    index = open_index(place)
    assert index.verify() == []
    query = codes[ITEMS:]
    (path,) = place.rglob("*.faiss")
    before = path.read_bytes()
    path.write_bytes(before[:-1] + b"?")
    (fault,) = open_index(place).verify()
    assert str(path) in fault
    path.unlink()
    index = open_index(place)
    exact = index.search(query, 10, exact=True)
    assert (index.search(query, 10).ids == exact.ids).all()
    index.compact()
    assert index.verify() == []
    assert index.info()["scanned_items"] == 0


def test_what_was_added_is_scanned_and_what_was_removed_not_found(place, codes):
    index = open_index(place)
    query = codes[ITEMS:]
    new = index.add(query, numbered_rows(0, len(query)))
    hits = index.search(query, 3)
    assert (hits.distances[:, 0] == 0).all()
    assert all(item in row for item, row in zip(new, hits.ids, strict=True))
    nearest = np.unique(hits.ids)
    index.remove(nearest)
    again = index.search(query, 3)
    assert not np.isin(again.ids, nearest).any()
    assert (again.ids >= 0).all()


def test_a_filter_is_answered_exactly(place, codes):
    index = open_index(place)
    filtered = index.search(codes[ITEMS:], 5, "id < 300")
    expected = index.search(codes[ITEMS:], 5, "id < 300", exact=True)
    assert (filtered.ids == expected.ids).all()
    assert filtered.ids.max() < 300


def test_small_segments_get_no_structure(tmp_path, codes):
    index = create_index(tmp_path / "small", Coding(64), kind="hnsw")
    index.add(codes[:100], make_rows(100))
    index.compact()
    assert index.info()["scanned_items"] == 100
    assert not list(tmp_path.rglob("*.faiss"))


def test_another_kind_replaces_the_structure(tmp_path, codes, monkeypatch):
    monkeypatch.setattr(structures, "LEAST_ITEMS", 100)
    index = create_index(tmp_path / "index", Coding(64), kind="mih")
    index.add(codes[:1000], make_rows(1000))
    index.compact()
    index.compact("ivf")
    assert [path.name for path in tmp_path.rglob("*.faiss")] == ["ivf.faiss"]
    index.compact("flat")
    assert not list(tmp_path.rglob("*.faiss"))
    assert index.verify() == []
