"""Image files of every kind, whole and spoilt, through every way in which a run reads them."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import benchmarks.mutated_images
from benchmarks.image_oracle import oracle_pixels
from benchmarks.mutated_images import SPOILS, Mutant, judged, mutated_images, run
from benchmarks.strange_images import encoded, picture, strange_images
from data.faults import shown
from data.jpeg import read_plain_jpeg
from utils.errors import UserError

WHOLE = strange_images(np.random.default_rng(0))
KINDS = sorted({image.name.rpartition(".")[2] for image in WHOLE})


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_are_shown_as_drawn_or_refused_where_nothing_is_to_be_seen(tmp_path, kind):
    images = [image for image in WHOLE if image.name.endswith(f".{kind}")]
    for image in images:
        path = tmp_path / image.name
        path.write_bytes(image.content)
        faults, found, _ = judged(path, Mutant(image.name, image.content, image))
        assert faults == [] and (found is None) == (image.pixels is None), image.name


def test_the_oracle_knows_what_was_drawn():
    known = [(image, oracle_pixels(image.content)) for image in WHOLE if image.pixels is not None]
    known = [(image, pixels) for image, pixels in known if pixels is not None]
    for image, pixels in known:
        difference = np.abs(pixels.astype(int) - image.pixels)
        assert difference.max() <= image.tolerance, image.name
    kinds = {image.name.rpartition(".")[2] for image, _ in known}
    assert {"jpg", "png", "webp", "gif", "jpeg"} <= kinds and len(known) > 30


def test_the_oracles_png_decoder_equals_pillows_on_every_filter():
    rng = np.random.default_rng(1)
    for mode in ("L", "LA", "RGB", "RGBA", "P", "1"):
        image = Image.fromarray(picture(rng)).convert(mode)  # Pillow chooses filters by row
        expected = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        expected = np.asarray(Image.alpha_composite(white, expected).convert("RGB"), dtype=int)
        assert np.abs(oracle_pixels(encoded(image, "png")) - expected).max() <= 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    which=st.integers(0, len(WHOLE) - 1),
    how=st.lists(st.sampled_from(sorted(SPOILS)), min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_spoilt_files_are_shown_like_the_oracle_or_refused_by_name(tmp_path, which, how, seed):
    rng = np.random.default_rng(seed)
    content = WHOLE[which].content
    for spoil in how:
        content = SPOILS[spoil](rng, content, WHOLE[rng.integers(len(WHOLE))].content)
    path = tmp_path / "x\ny.jpg"
    path.write_bytes(content)
    assert judged(path, Mutant(path.name, content, None))[0] == []


def test_the_benchmark_finds_nothing_wrong(tmp_path):
    finding = run(40, 5, tmp_path / "images")
    assert finding.failures == [] and finding.tried == 40
    figures = finding.figures
    assert figures["shown"] + figures["refused"] == 40
    assert min(figures["shown"], figures["refused"], figures["compared"]) > 5


def test_of_all_kinds_only_upright_baseline_ycbcr_jpegs_go_to_the_device(tmp_path):
    chosen = set()
    for image in WHOLE:
        path = tmp_path / image.name
        path.write_bytes(image.content)
        if read_plain_jpeg(path):
            chosen.add(image.name)
    plain = {"plain", "halved_colours", "restarts"}
    expected = {f"{name}{end}" for name in plain for end in (".jpg", ".jpeg.png")}
    assert chosen == {*expected, "turned_1.jpeg"}


def fails_nameless(path):
    raise UserError("an image cannot be read")


def raises_anything(path):
    raise IndexError("of Pillow's depths")


def black(path):
    return Image.new("RGB", Image.open(path).size)


@pytest.mark.parametrize("read", [fails_nameless, raises_anything, black])
def test_a_reader_that_is_wrong_is_found(tmp_path, monkeypatch, read):
    monkeypatch.setattr(benchmarks.mutated_images, "read_image", read)
    image = next(image for image in WHOLE if image.name == "plain.png")
    path = tmp_path / image.name
    path.write_bytes(image.content)
    assert judged(path, Mutant(image.name, image.content, image))[0]


def test_a_hang_is_found(tmp_path, monkeypatch):
    def wait(path):
        while True:
            pass

    monkeypatch.setattr(benchmarks.mutated_images, "read_image", wait)
    monkeypatch.setattr(benchmarks.mutated_images, "SECONDS", 1)
    assert "TooSlow" in judged(tmp_path / "x", Mutant("x", b"", None))[0][0]


def test_mutants_are_the_same_for_a_seed_and_have_strange_names_and_all_spoils():
    one, same, other = (mutated_images(150, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert [m.content for m in one] == [m.content for m in same] != [m.content for m in other]
    names = [mutant.name for mutant in one]
    assert len(set(names)) == 150 and any(shown(name) != name for name in names)
    assert {name.split("_")[1] for name in names} >= {"whole", "flip", "header", "hole", "swap"}
