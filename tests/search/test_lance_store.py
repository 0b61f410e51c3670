import warnings

import numpy as np
import pytest
from drawn_codes import draw_codes, numbered_rows

from search.index import create_index, open_index
from search.store import Coding
from search.writer_lock import writing
from utils.errors import UserError

pytest.importorskip("lancedb")


@pytest.fixture
def pair(tmp_path, rng):
    """The same items in both stores, of which the one of segments has tests of its own."""
    coding = Coding(20, model_digest="ab" * 32, class_names=("cat", "dog"), class_counts=(3, 1))
    both = [create_index(tmp_path / store, coding, store) for store in ("lance", "faiss")]
    for first, count in ((0, 5), (5, 300)):
        codes = draw_codes(rng, count, 20)
        for index in both:
            index.add(codes, numbered_rows(first, count))
    return both


def same(pair, rng, k=15):
    lance, faiss = pair
    query = draw_codes(rng, 3, 20)
    for where in (
        None,
        "label = 'dog'",
        "NOT (width IN (1, 2) OR path LIKE '1%') AND id >= 3",
        "split IS NULL AND label BETWEEN 'a' AND 'cat'",
        "label = 'it''s'",
    ):
        expected, found = faiss.search(query, k, where), lance.search(query, k, where)
        assert (found.ids == expected.ids).all(), where
        assert (found.distances == expected.distances).all()
        assert lance.select(where).tolist() == faiss.select(where).tolist()
    some = rng.permutation(faiss.select())[:20]
    assert lance.rows(some).equals(faiss.rows(some))
    assert (lance.codes(some) == faiss.codes(some)).all()
    assert len(lance) == len(faiss)


def test_both_stores_answer_alike_through_adds_removes_and_compaction(pair, rng):
    lance, faiss = pair
    same(pair, rng)
    for index in pair:
        assert index.remove(np.arange(3, 200, 7)) == 29
    same(pair, rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lance.compact()
    same(pair, rng)
    codes = draw_codes(rng, 10, 20)
    given = [index.add(codes, numbered_rows(305, 10)).tolist() for index in pair]
    assert given[0] == given[1] == list(range(305, 315))
    same((open_index(lance.place), faiss), rng, k=400)
    assert lance.verify() == []


def test_ids_are_not_given_twice_after_the_last_item_went(pair, rng):
    lance, _ = pair
    lance.remove(lance.select())
    lance = open_index(lance.place)
    assert len(lance) == 0
    assert (lance.search(draw_codes(rng, 1, 20), 2).ids == -1).all()
    assert lance.add(draw_codes(rng, 1, 20), numbered_rows(0, 1)).tolist() == [305]


def test_what_it_holds_outlives_the_process_and_guards_it(pair, rng):
    lance = open_index(pair[0].place)
    assert lance.coding == pair[1].coding
    with pytest.raises(UserError, match="from the model cdcd"):
        lance.search(draw_codes(rng, 1, 20), 3, model_digest="cd" * 32)
    with pytest.raises(UserError, match="no id 999"):
        lance.remove([1, 999])
    with pytest.raises(UserError, match="filter"):
        lance.search(draw_codes(rng, 1, 20), 3, "label = 'x'; DROP TABLE images")
    assert len(lance) == 305


def test_a_second_writer_is_refused_and_a_reader_is_not(pair, rng, tmp_path):
    lance = pair[0]
    with writing(tmp_path / "lance"):
        with pytest.raises(UserError, match="another process is writing"):
            lance.remove([1])
        assert (lance.search(draw_codes(rng, 1, 20), 5).ids >= 0).all()


def test_kinds_that_it_lacks_are_refused(tmp_path, pair):
    with pytest.raises(UserError, match="no kind 'hnsw'"):
        create_index(tmp_path / "new", Coding(8), "lance", "hnsw")
    with pytest.raises(UserError, match="settles the kind"):
        pair[0].compact("ivf")


def test_inverted_lists_find_near_items_and_exact_and_filtered_searches_all(tmp_path, rng):
    index = create_index(tmp_path / "index", Coding(64), "lance", "ivf")
    codes = draw_codes(rng, 12_000, 64)
    index.add(codes, numbered_rows(0, 12_000))
    index.compact()
    assert index.info()["scanned_items"] == 0
    query = draw_codes(rng, 5, 64)
    exact = index.search(query, 10, exact=True)
    distances = np.bitwise_count(query.view(np.uint64) ^ codes.view(np.uint64)[:, 0])
    assert (exact.distances == np.sort(distances, 1)[:, :10]).all()
    found = index.search(query, 10, effort=100)
    assert (found.distances <= exact.distances[:, -1:]).mean() > 0.9
    few = index.search(query, 3, "id >= 11000")
    order = np.lexsort((np.arange(1000), distances[0, 11_000:]))[:3]
    assert few.ids[0].tolist() == (11_000 + order).tolist()


def test_a_uri_is_a_place_too(tmp_path, rng):
    place = f"file://{tmp_path}/index"
    codes = draw_codes(rng, 50, 20)
    create_index(place, Coding(20), "lance").add(codes, numbered_rows(0, 50))
    index = open_index(place)
    index.remove([3])
    assert len(open_index(place)) == 49
    assert index.search(codes[:1], 1).distances.tolist() == [[0]]
    with pytest.raises(UserError, match="no index"):
        open_index(f"file://{tmp_path}/other")
