import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.check import check_source
from data.faults import DataError
from data.images import open_images
from data.list_file import create_source
from data.protocol import ROLES, Draw, Protocol
from data.split import make_split
from utils.errors import UserError


@pytest.fixture
def root(tmp_path, write_image):
    for index in range(6):
        write_image(f"pictures/{index}.png")
    return tmp_path


def write(root, **lists):
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")


def test_class_index_lists(root):
    write(
        root, train=["0.png 0", "", "1.png 1", "./2.png 1"], test=["3.png 0"], names=["cat", "dog"]
    )
    source = create_source(
        root, "train.txt", test="test.txt", image_folder="pictures", class_names="names.txt"
    )
    assert source.image_names == ["0.png", "1.png", "2.png", "3.png"]
    assert source.labels.tolist() == [0, 1, 1, 0]
    assert source.class_names == ["cat", "dog"]
    assert {k: v.tolist() for k, v in source.subsets.items()} == {"train": [0, 1, 2], "test": [3]}
    assert source.read(3).size == (8, 8)


def test_multi_label_lists(root):
    write(root, train=["pictures/0.png 1 0 1", "pictures/1.png 0 0 0"], q=["pictures/2.png 0 1 0"])
    source = create_source(root, "train.txt", query=str(root / "q.txt"))
    assert source.multi_label and source.num_classes == 3
    assert source.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_paths_may_hold_spaces_and_digits(root, write_image):
    write_image("pictures/a 7 b.png")
    write(root, train=["a 7 b.png 0", "0.png 1"])
    source = create_source(root, "train.txt", image_folder="pictures")
    assert source.image_names[0] == "a 7 b.png"


@pytest.mark.parametrize("rows", [["1", "0"], ["0 1 1", "1 0 0"]])
def test_pair_form_equals_the_one_file_form(root, rows):
    names = ["0.png", "1.png"]
    write(
        root, names=names, labels=rows, one=[f"{n} {r}" for n, r in zip(names, rows, strict=True)]
    )
    pair = create_source(root, ["names.txt", "labels.txt"], image_folder="pictures")
    one = create_source(root, "one.txt", image_folder="pictures")
    assert pair.image_names == one.image_names
    assert np.array_equal(pair.labels, one.labels)


def test_an_image_of_several_lists_is_one_image(root):
    write(
        root,
        train=["0.png 0", "1.png 1"],
        query=["2.png 0"],
        base=["3.png 1", "1.png 1", "0.png 0"],
    )
    source = create_source(
        root, "train.txt", query="query.txt", database="base.txt", image_folder="pictures"
    )
    assert len(source) == 4
    assert source.subsets["database"].tolist() == [0, 1, 3]
    assert list(source.subsets) == ["train", "query", "database"]


def test_columns_with_one_label_each_are_classes(root):
    rows = {"0.png": 2, "1.png": 0, "2.png": 1}
    write(
        root,
        train=[
            f"{n} {' '.join('1' if c == k else '0' for k in range(3))}" for n, c in rows.items()
        ],
        query=["3.png 0 0 1"],
        database=["4.png 0 1 0"],
        open=["5.png"],
    )
    lists = {name: f"{name}.txt" for name in ("train", "query", "database", "open")}
    source = create_source(root, **lists, image_folder="pictures")
    assert not source.multi_label and source.num_classes == 3
    assert source.labels.tolist() == [*rows.values(), 2, 1, -1]


def test_images_without_a_label_keep_columns_multi_label(root):
    write(root, train=["0.png 0 1", "1.png 1 0", "2.png 0 0"])
    source = create_source(root, "train.txt", image_folder="pictures")
    assert source.labels.tolist() == [[0, 1], [1, 0], [0, 0]]


def test_hashnets_three_lists_obey_a_protocol(root):
    rows = [f"{i}.png {i % 2} {(i + 1) % 2}" for i in range(6)]
    write(root, train=rows[2:4], test=rows[:2], database=rows[2:])
    lists = {name: f"{name}.txt" for name in ("train", "test", "database")}
    source = create_source(root, **lists, image_folder="pictures")
    counts = {"classes": 2, "query": 2, "train": 2, "database": 4}
    protocol = Protocol(
        name="small",
        dataset="pictures",
        publication="none",
        multi_label=False,
        queries=Draw(per_class=1),
        train=Draw(per_class=1),
        headline_k=None,
        expected={role: (count, count) for role, count in counts.items()},
    )
    split = make_split(source, protocol=protocol, validation_per_class=0)
    names = {r: [source.image_names[i] for i in getattr(split, r)] for r in ROLES}
    assert names["query"] == ["0.png", "1.png"] and names["train"] == ["2.png", "3.png"]
    assert names["database"] == ["2.png", "3.png", "4.png", "5.png"]


def test_lists_of_windows_are_read_like_others(root):
    plain, windows = (
        ["pictures/0.png 0", "pictures/1.png 1"],
        "\r\n".join(["pictures\\0.png 0", "pictures\\1.png 1", ""]),
    )
    write(root, plain=plain)
    (root / "windows.txt").write_bytes(b"\xef\xbb\xbf" + windows.encode())
    one, other = (create_source(root, f"{name}.txt") for name in ("plain", "windows"))
    assert one.image_names == other.image_names and np.array_equal(one.labels, other.labels)


def test_a_name_twice_in_a_list_is_one_image(root):
    write(root, train=["0.png 0", "1.png 1", "0.png 0"])
    source = create_source(root, "train.txt", image_folder="pictures")
    assert len(source) == 2 and source.subsets["train"].tolist() == [0, 1]


def test_open_lists_need_no_labels(root):
    write(root, train=["0.png 0", "1.png 1"], bare=["2.png", "3.png"], labelled=["2.png 9"])
    for name, count in (("bare", 2), ("labelled", 1)):
        source = create_source(root, "train.txt", open=f"{name}.txt", image_folder="pictures")
        assert source.labels[source.subsets["open"]].tolist() == [-1] * count
        assert source.num_classes == 2
    write(root, train=["0.png 0 1", "1.png 1 1"])
    source = create_source(root, "train.txt", open="bare.txt", image_folder="pictures")
    assert source.labels[source.subsets["open"]].tolist() == [[0, 0]] * 2


def test_joined_lists_have_one_subset(root):
    write(root, train=["0.png 0", "1.png 1"], test=["2.png 0"])
    source = create_source(root, "train.txt", "test.txt", image_folder="pictures", join=True)
    assert source.subsets["all"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (["0.png"], None, "train.txt, line 1: .* has no label"),
        ([""], None, "train.txt is empty"),
        (["0.png 0", "1.png x"], None, "train.txt, line 2: labels 'x' are not whole"),
        (["0.png 0", "1.png"], None, "train.txt, line 2: 0 labels where the first"),
        (["0.png 0 1", "1.png 1"], None, "train.txt, line 2: 1 labels where the first"),
        (["0.png 0 1", "1.png 1 2"], None, "train.txt, line 2: .* must hold 0 or 1"),
        (["0.png 0", "1.png -1"], None, "train.txt, line 2: class -1 is negative"),
        (["0.png 0", "1.png 2"], None, "class '1' has no training image in .*train.txt"),
        (["0.png 0", "0.png 1"], None, "train.txt, line 2: 0.png has other labels .* line 1"),
        (["0.png 0"], ["", "0.png 1"], "test.txt, line 2: 0.png has other labels"),
        (["0.png 0 1"], ["1.png 1"], "test.txt, line 1: 1 labels where .*train.txt, line 1 has 2"),
        (["no.png 0", "nor.png 0"], None, "train.txt, line 1: image .*no.png does not exist, nor"),
    ],
)
def test_malformed_lists_name_file_and_line(root, train, test, said):
    write(root, train=train, test=test or [])
    with pytest.raises(UserError, match=said) as error:
        create_source(root, "train.txt", test="test.txt" if test else None, image_folder="pictures")
    assert "\n" not in str(error.value)


def test_all_malformed_lines_are_found_at_once(root):
    write(root, train=["0.png 0", "1.png x", "2.png -1", "0.png 1"], test=["3.png 0", "4.png"])
    with pytest.raises(DataError) as error:
        create_source(root, "train.txt", test="test.txt", image_folder="pictures")
    places = [fault.partition(": ")[0] for fault in error.value.faults]
    train, test = root / "train.txt", root / "test.txt"
    assert places == [f"{train}, line 2", f"{train}, line 3", f"{test}, line 2"]
    assert "the first of 3 faults" in str(error.value)
    write(root, train=["0.png 0", "1.png 1", "0.png 1", "1.png 0"])
    with pytest.raises(DataError) as error:
        create_source(root, "train.txt", image_folder="pictures")
    assert [fault[len(f"{train}, line ")] for fault in error.value.faults] == ["3", "4"]


@pytest.mark.parametrize("cache_size", ["auto", 8, None])
def test_all_missing_images_are_found_before_training_by_the_line_that_lists_them(root, cache_size):
    for name in ("2.png", "5.png"):
        (root / "pictures" / name).unlink()
    (root / "pictures/5.png").symlink_to("nowhere.png")
    (root / "pictures/folder.png").mkdir()
    lines = ["0.png 0", "", "1.png 1", "2.png 0", "folder.png 1", "a\x01b.png 0"]
    write(root, train=lines, test=["3.png 0", "5.png 1", "2.png 0"])
    source = create_source(root, "train.txt", "test.txt", image_folder="pictures")
    with pytest.raises(DataError) as error:
        open_images(source, cache_size).digests(np.arange(len(source)))
    listed = [("train.txt, line 4", "2.png"), ("train.txt, line 5", "folder.png")]
    listed += [("train.txt, line 6", "a\\x01b.png"), ("test.txt, line 2", "5.png")]
    for faults in (error.value.faults, check_source(source).unreadable):
        assert len(faults) == 4
        for (place, name), fault in zip(listed, faults, strict=True):
            assert fault.startswith(f"{root / place}: image ") and name in fault
            assert fault.isprintable()


def test_images_may_be_listed_by_absolute_paths(root):
    write(root, train=[f"{root}/pictures/{i}.png {i % 2}" for i in range(4)])
    source = create_source(root, "train.txt", image_folder="elsewhere")
    pixels = open_images(source).array
    assert np.array_equal(pixels[3], np.asarray(Image.open(root / "pictures/3.png")))


@pytest.mark.parametrize("label", ["99999999999", "9" * 400, "1" + "0" * 18])
def test_an_absurd_class_number_costs_no_memory(root, label):
    write(root, train=["0.png 0", f"1.png {label}"])
    with pytest.raises(UserError, match=r"line 2: class .* but class '1' has no training image"):
        create_source(root, "train.txt", image_folder="pictures")


def test_class_names_stand_once(root):
    write(root, train=["0.png 0", "1.png 1"], names=["cat", "dog", "", "cat"])
    with pytest.raises(UserError, match=r"names.txt, line 4: class 'cat' stands in line 1 already"):
        create_source(root, "train.txt", image_folder="pictures", class_names="names.txt")


WORD = st.sampled_from(["0.png", "x y.png", "0", "1", "-1", "²", "\u0667", "", "\t", "1e3"])


@given(st.lists(st.lists(WORD), max_size=6))
def test_any_lines_are_read_or_refused_by_file_and_line(tmp_path_factory, lines):
    root = tmp_path_factory.getbasetemp() / "any_lines"
    root.mkdir(exist_ok=True)
    (root / "0.png").touch()
    write(root, train=[" ".join(words) for words in lines])
    try:
        source = create_source(root, "train.txt")
    except UserError as error:
        assert str(error).isprintable() and str(root / "train.txt") in str(error)
    else:
        assert len(source.places) == len(source) > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"train": "absent.txt"}, "absent.txt cannot be read"),
        ({"train": "binary.txt"}, "not UTF-8"),
        ({"train": ["good.txt"]}, "1 list files"),
        ({"train": ["names.txt", "short.txt"]}, "has 2 images but .*short.txt has 1 lines"),
        ({"train": "good.txt", "test": "good.txt", "query": "good.txt"}, "both test and query"),
        ({"train": "good.txt", "database": "good.txt"}, "without a query list"),
        ({"train": "good.txt", "class_names": "short.txt"}, "short.txt has 1 names .* 2 classes"),
    ],
)
def test_wrong_parameters_are_named(root, arguments, said):
    write(root, good=["0.png 0", "1.png 1"], names=["0.png", "1.png"], short=["0"])
    (root / "binary.txt").write_bytes(b"\xfe\xed\x00")
    with pytest.raises(UserError, match=said):
        create_source(root, image_folder="pictures", **arguments)
