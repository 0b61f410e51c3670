"""The original layout of NUS-WIDE, with line ends and separators as published."""

import re

import numpy as np
import pytest

from data.check import check_source
from data.faults import DataError
from data.images import open_images
from data.nus_wide import create_source
from utils.errors import UserError

CONCEPTS = {  # of seven images; lake and sky are equally frequent, cat is the rarest
    "sky": [1, 1, 0, 0, 1, 0, 0],
    "cat": [0, 0, 0, 0, 0, 0, 1],
    "lake": [1, 0, 1, 0, 0, 1, 0],
    "person": [0, 1, 1, 1, 1, 0, 0],
}
NAMES = [f"actor/{i:04d}_{i}.jpg" for i in range(7)]


@pytest.fixture
def root(tmp_path, write_image):
    for name in NAMES:
        write_image(f"NUS_WIDE/Flickr/{name}")
    root = tmp_path / "NUS_WIDE"
    write(root, "ImageList/Imagelist.txt", [name.replace("/", "\\") for name in NAMES])
    for concept, column in CONCEPTS.items():
        write(root, f"Groundtruth/AllLabels/Labels_{concept}.txt", column)
    return root


def write(root, name, lines, start=""):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes((start + "".join(f"{line}\r\n" for line in lines)).encode())


def test_the_most_frequent_concepts_and_the_images_that_have_one(root):
    source = create_source(root.parent, concepts=3)
    assert source.class_names == ["person", "lake", "sky"]  # 4, 3 and 3 images; ties by name
    assert source.image_names == NAMES[:6]  # the cat alone has none of them
    expected = [[CONCEPTS[concept][i] for concept in source.class_names] for i in range(6)]
    assert source.labels.tolist() == expected and source.labels.dtype == np.uint8
    assert source.subsets["all"].tolist() == list(range(6))
    assert source.read(5).size == (8, 8)


def test_a_concept_list_keeps_its_order(root):
    write(root, "ConceptsList/Two.txt", ["cat", "sky"], start="\ufeff")
    source = create_source(root.parent, concepts="ConceptsList/Two.txt")
    assert source.class_names == ["cat", "sky"]
    assert source.image_names == [NAMES[i] for i in (0, 1, 4, 6)]
    assert source.labels.tolist() == [[0, 1], [0, 1], [0, 1], [1, 0]]


def test_byte_order_marks_are_taken_off(root):
    before = create_source(root.parent, concepts=4)
    write(root, "Groundtruth/AllLabels/Labels_sky.txt", CONCEPTS["sky"], start="\ufeff")
    write(root, "ImageList/Imagelist.txt", NAMES, start="\ufeff")
    after = create_source(root.parent, concepts=4)
    assert after.image_names == before.image_names
    assert np.array_equal(after.labels, before.labels)


def test_a_missing_image_is_found_before_training_by_the_line_that_lists_it(root):
    (root / "Flickr" / NAMES[4]).unlink()
    source = create_source(root.parent, concepts=3)
    line = f"{root / 'ImageList/Imagelist.txt'}, line 5: image {root / 'Flickr' / NAMES[4]} cannot"
    with pytest.raises(UserError, match=re.escape(line)):
        open_images(source)
    assert check_source(source).unreadable[0].startswith(line)


def test_all_wrong_labels_are_found_at_once(root):
    write(root, "Groundtruth/AllLabels/Labels_sky.txt", [0, "x", 0, 0, 0, 2, 0])
    write(root, "Groundtruth/AllLabels/Labels_cat.txt", ["0 1", *[0] * 5])  # two in a line
    with pytest.raises(DataError) as error:
        create_source(root.parent, concepts=4)
    faults = [
        fault.replace(str(root / "Groundtruth/AllLabels/Labels_"), "")
        for fault in error.value.faults
    ]
    assert [fault.partition(";")[0] for fault in faults[1:]] == [
        "sky.txt, line 2: label 'x'",
        "sky.txt, line 6: label '2'",
    ]
    assert faults[0].startswith("label file cat.txt has 6 labels")


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [
        ("Groundtruth/AllLabels/Labels_sky.txt", [1, 0], "has 2 labels but .* has 7 images"),
        ("Groundtruth/AllLabels/Labels_sky.txt", [0, 1, 2, 0, 0, 0, 0], "line 3: label '2'"),
        ("Groundtruth/AllLabels/Labels_sky.txt", [], "has 0 labels but"),
        ("ImageList/Imagelist.txt", [*NAMES[:6], NAMES[2]], "line 7: .* in line 3 already"),
        ("ImageList/Imagelist.txt", [], "is empty"),
        (
            "ImageList/Imagelist.txt",
            [f"no{i}.jpg" for i in range(7)],
            "Imagelist.txt, line [0-9]: .*Flickr/no[0-9].jpg does not exist, nor any",
        ),
    ],
)
def test_broken_files_are_named(root, name, lines, said):
    write(root, name, lines)
    with pytest.raises(UserError, match=said) as error:
        create_source(root.parent, concepts=4)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["sky", "", "dog"], "line 3: no file Labels_dog.txt"),
        (["sky", "cat", "sky"], "line 3: concept sky is listed twice"),
        (["sky"], "lists 1 concepts; expected at least 2"),
    ],
)
def test_wrong_concept_lists_are_named(root, lines, said):
    write(root, "concepts.txt", lines)
    with pytest.raises(UserError, match=said):
        create_source(root.parent, concepts="concepts.txt")


def test_missing_parts_are_named(root):
    for concepts, said in ((1, "concepts is 1; expected 2 to 4"), (21, "concepts is 21")):
        with pytest.raises(UserError, match=said):
            create_source(root.parent, concepts=concepts)
    with pytest.raises(UserError, match=r"absent\.txt cannot be read"):
        create_source(root.parent, concepts="absent.txt")
    (root / "ImageList/Imagelist.txt").unlink()
    with pytest.raises(UserError, match=r"Imagelist\.txt cannot be read"):
        create_source(root.parent)
    for path in (root / "Groundtruth/AllLabels").iterdir():
        path.unlink()
    write(root, "ImageList/Imagelist.txt", NAMES)
    with pytest.raises(UserError, match=r"holds no Labels_<concept>\.txt"):
        create_source(root.parent)


def test_no_image_with_a_concept_is_refused(root):
    for concept in CONCEPTS:
        write(root, f"Groundtruth/AllLabels/Labels_{concept}.txt", [0] * 7)
    with pytest.raises(UserError, match=r"no image of .* has one of the 3 concepts"):
        create_source(root.parent, concepts=3)
