import numpy as np
import pytest
from drawn_codes import draw_codes

from search.lists import find_centres, nearest_centres
from search.scan import as_rows


@pytest.mark.parametrize(("code_length", "lists"), [(64, 7), (24, 3), (128, 5000)])
def test_the_nearest_centre_is_that_of_a_loop(rng, monkeypatch, code_length, lists):
    monkeypatch.setattr("search.lists.PART", 100)
    codes, centres = draw_codes(rng, 350, code_length), draw_codes(rng, lists, code_length)
    found = nearest_centres(as_rows(codes), as_rows(centres))
    for code, centre in zip(codes, found, strict=True):
        distances = np.bitwise_count(code ^ centres).sum(1)
        assert centre == distances.argmin()


def test_a_centre_has_the_bits_of_most_of_its_codes(rng):
    hidden = rng.integers(0, 256, (4, 8), np.uint8)
    bits = np.unpackbits(hidden, axis=1)[np.repeat(np.arange(4), 500)]
    codes = np.packbits(bits ^ (rng.random(bits.shape) < 0.1), axis=1)
    codes = codes[rng.permutation(len(codes))]
    # Four centres may start in one group and stay apart; with twelve each group has one.
    found = find_centres(as_rows(codes), 12, 10, rng)
    belongs = nearest_centres(as_rows(codes), found)
    for number in np.unique(belongs):
        own = np.unpackbits(codes[belongs == number], axis=1)
        share, centre = own.mean(0), np.unpackbits(found[number].view(np.uint8))
        assert (centre[share > 0.5] == 1).all() and (centre[share < 0.5] == 0).all()
    distances = np.bitwise_count(hidden[:, None] ^ found.view(np.uint8)[None]).sum(-1)
    assert (distances.min(1) <= 4).all()


def test_a_centre_without_codes_becomes_one_of_them(rng):
    codes = np.repeat(draw_codes(rng, 2, 64), 50, axis=0)
    found = find_centres(as_rows(codes), 10, 3, rng)
    assert {bytes(code) for code in found.view(np.uint8)} <= {bytes(code) for code in codes}
