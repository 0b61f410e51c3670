"""The original layout of MIRFlickr-25K."""

import pytest

from data.mirflickr import create_source
from utils.errors import UserError

LABELS = {"sky": [1, 3, 12], "baby": [2], "plant_life": [12, 2]}


@pytest.fixture
def root(tmp_path, write_image):
    for number in (1, 2, 3, 4, 12):
        write_image(f"MIRFlickr/mirflickr/im{number}.jpg")
    root = tmp_path / "MIRFlickr"
    (root / "mirflickr/doc").mkdir()
    (root / "annotations").mkdir()
    for label, numbers in LABELS.items():
        write(root, label, numbers)
    write(root, "baby_r1", [2])
    (root / "annotations/README.txt").write_text("MIRFLICKR-25000 annotations\n")
    return root


def write(root, label, lines, start=""):
    content = start + "".join(f"{line}\r\n" for line in lines)
    (root / f"annotations/{label}.txt").write_bytes(content.encode())


def test_images_by_number_with_the_labels_of_their_files(root):
    source = create_source(root.parent)
    assert source.image_names == [f"im{number}.jpg" for number in (1, 2, 3, 4, 12)]
    assert source.class_names == ["baby", "plant_life", "sky"]
    assert source.labels.tolist() == [[0, 0, 1], [1, 1, 0], [0, 0, 1], [0, 0, 0], [0, 1, 1]]
    assert source.subsets["all"].tolist() == [0, 1, 2, 3, 4]
    assert source.read(4).size == (8, 8)


def test_byte_order_marks_and_repeated_numbers_change_nothing(root):
    before = create_source(root.parent)
    write(root, "sky", [*LABELS["sky"], 1], start="\ufeff")
    assert (create_source(root.parent).labels == before.labels).all()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([1, "", 5], r"sky.txt, line 3: image .*mirflickr/im5.jpg does not exist"),
        ([1, "im3.jpg"], "line 2: 'im3.jpg'; expected an image number"),
        ([1, "9" * 5000], "line 2: '9+'; expected an image number"),
        ([1, "2\u0663"], "line 2: .*; expected an image number"),
        ([1, -3], "line 2: '-3'; expected an image number"),
    ],
)
def test_lines_without_an_image_are_named(root, lines, said):
    write(root, "sky", lines)
    with pytest.raises(UserError, match=said):
        create_source(root.parent)


def test_missing_parts_are_named(root):
    with pytest.raises(UserError, match="absent cannot be read"):
        create_source(root.parent, annotations="absent")
    with pytest.raises(UserError, match=r"holds no im<number>\.jpg"):
        create_source(root.parent, image_folder="annotations")
    for label in ("baby", "sky"):
        (root / f"annotations/{label}.txt").unlink()
    with pytest.raises(UserError, match="holds 1 label files"):
        create_source(root.parent)
