"""A query that sits in the database is reported, an innocent namesake is not."""

import numpy as np

from retrieval.codes import make_codes
from retrieval.overlap import content_digests, find_overlap


def _codes(**more):
    query = np.array([[1, 1, -1], [1, -1, -1], [-1, -1, -1]])
    database = np.array([[1, 1, -1], [1, 1, 1], [-1, -1, -1], [1, -1, 1]])
    return make_codes(
        query_codes=query,
        database_codes=database,
        query_labels=np.zeros(3, int),
        database_labels=np.zeros(4, int),
        **more,
    )


def test_name_and_code_must_both_agree():
    codes = _codes(query_names=["a", "b", "c"], database_names=["a", "b", "x", "y"])
    found = find_overlap(codes)
    # "a" has its code in the database too; "b" has another code; "c" another name.
    assert (found.same_name_and_code, found.same_content, found.examples) == (1, None, (0,))
    assert found.any


def test_without_names_or_images_nothing_is_claimed():
    found = find_overlap(_codes())
    assert (found.same_name_and_code, found.same_content, found.any) == (None, None, False)


def test_equal_pixels_are_found():
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), dtype=np.uint8)
    queries, database = images[:3], np.concatenate([images[3:6], images[2:3]])
    digests = content_digests(queries), content_digests(database)
    found = find_overlap(_codes(), *digests)
    assert (found.same_content, found.examples) == (1, (2,))
    # Equal bytes of another shape are another image.
    flat, square = content_digests([images[0].ravel()]), content_digests([images[0]])
    assert flat[0] != square[0]
