from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data.check import check_source
from data.image_folder import create_source
from data.protocol import Draw, Protocol


@pytest.fixture
def root(write_images):
    return write_images({"train/a": 5, "train/b": 2, "train/c": 3, "test/a": 1, "test/c": 2})


def test_a_sound_source(root):
    report = check_source(create_source(root, name="Letters"))
    assert report.ok
    train, test = report.subsets
    assert (train.images, train.per_class) == (10, (2, 3.0, 5))
    assert (test.images, test.per_class) == (3, (0, 1.0, 2))
    assert report.lines() == [
        "Letters: 3 classes",
        "  train: 10 images, a class 2 to 5, median 3",
        "  test: 3 images, a class 0 to 2, median 1",
        "  unreadable images: 0",
        "  no overlap",
    ]


def test_all_unreadable_files_are_listed(root):
    broken = [root / "train/a/003.png", root / "test/c/001.png"]
    for path in broken:
        path.write_bytes(b"broken")
    report = check_source(create_source(root))
    assert not report.ok and len(report.unreadable) == 2
    for path, message in zip(broken, report.unreadable, strict=True):
        assert str(path) in message and f"    {message}" in report.lines()


def test_overlap_is_found_by_pixels_whatever_the_file_format(root):
    with Image.open(root / "train/b/000.png") as image:
        image.save(root / "test/a/same.bmp")
    report = check_source(create_source(root))
    assert report.overlap == [("test/a/same.bmp", "train/b/000.png")]
    assert not report.ok and "copies" in report.lines()[-1]
    known = check_source(create_source(root), on_leak="warn")
    assert known.ok and known.lines()[-1] == f"{report.lines()[-1]} (data.on_leak is 'warn')"


def test_multi_label_sources_count_labels_an_image(array_source):
    source = array_source(True, train=[10, 5], test=[2, 2])
    train = check_source(source).subsets[0]
    labels = source.labels[:15].sum(1)
    assert train.labels_per_image == (labels.min(), np.median(labels), labels.max())
    assert "labels an image 1 to 2" in check_source(source).lines()[1]


def test_sources_in_memory_and_without_queries(array_source):
    report = check_source(array_source(all=[3, 3]))
    assert report.ok and report.overlap == []


def small(**expected) -> Protocol:
    """Asks for a query and a training image of each of the three classes."""
    counts = {"classes": 3, "query": 3, "train": 3, "database": 10, **expected}
    return Protocol(
        name="small",
        dataset="letters",
        publication="none",
        multi_label=False,
        queries=Draw(per_class=1),
        train=Draw(per_class=1),
        headline_k=7,
        expected={role: (count, count) for role, count in counts.items()},
    )


def test_a_protocols_counts_are_reported(root):
    report = check_source(create_source(root, join=True), small())
    assert report.ok
    assert report.lines()[2] == (
        "  protocol small, MAP@7: query 3, train 3, database 10, as expected"
    )


def test_counts_that_do_not_hold_are_a_fault_beside_the_rest(root):
    report = check_source(create_source(root, join=True), small(database=11))
    assert not report.ok
    assert "found 10 database (expected 11)" in report.lines()[2]
    assert report.lines()[3] == "  unreadable images: 0"


def test_overlap_of_drawn_queries_is_found(array_source):
    source = array_source(all=[4, 4, 5])
    pixels = source.arrays.copy()
    pixels[:4] = pixels[0]  # whichever of the first class asks, its copies are searched
    report = check_source(replace(source, arrays=pixels), small())
    ((query, other),) = report.overlap
    assert {query, other} <= set(source.image_names[:4]) and query != other
    assert check_source(source, small()).ok
