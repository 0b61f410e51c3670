"""Protocols are drawn and counted as their files say, on made-up sources of the same shape."""

from dataclasses import replace

import numpy as np
import pytest
import yaml

from data.manifest import digest, manifest, read_split
from data.protocol import FOLDER, Draw, Protocol, draw_images, load_protocol
from data.source import Source
from data.split import make_split
from utils.atomic_file import write_json
from utils.errors import UserError

PUBLISHED = {  # images, classes, then query, train and database counts, and K of MAP@K
    "cifar10_5000": (60000, 10, 1000, 5000, 59000, None),
    "cifar10_59000": (60000, 10, 1000, 59000, 59000, None),
    "nus_wide_tc21": (195834, 21, 2100, 10500, 193734, 5000),
    "mirflickr25k": (25000, 24, 2000, 23000, 23000, None),
    "imagenet100": (133503, 100, 5000, 10000, 128503, 1000),
}


def label_only(count: int, num_classes: int, multi_label: bool) -> Source:
    """A source of black images of one pixel; multi-label rows have 1 to 4 labels, some rare."""
    classes = np.arange(count) % num_classes
    labels = classes
    if multi_label:
        rng = np.random.default_rng(0)
        chance = np.linspace(0.01, 0.3, num_classes)
        labels = (rng.random((count, num_classes)) < chance).astype(np.uint8)
        labels[np.arange(count), classes] = 1
    return Source(
        name="made-up",
        class_names=[f"class {c}" for c in range(num_classes)],
        image_names=[f"{i:06d}" for i in range(count)],
        labels=labels,
        subsets={"all": np.arange(count)},
        arrays=np.zeros((count, 1, 1, 3), dtype=np.uint8),
    )


def small(**changes) -> Protocol:
    """10 queries and 20 training images a class of two classes of 100 images."""
    value = Protocol(
        name="small",
        dataset="made-up",
        publication="none",
        multi_label=False,
        queries=Draw(per_class=10),
        train=Draw(per_class=20),
        headline_k=50,
        expected={"classes": (2, 2), "query": (20, 20), "train": (40, 40), "database": (180, 180)},
    )
    return replace(value, **changes)


def test_every_published_protocol_is_here():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_come_out_of_a_dataset_of_the_published_size(name):
    images, classes, query, train, database, k = PUBLISHED[name]
    protocol = load_protocol(name)
    source = label_only(images, classes, protocol.multi_label)
    split = make_split(source, protocol=protocol, validation_per_class=0)
    assert [len(split.query), len(split.train), len(split.database)] == [query, train, database]
    assert not np.isin(split.query, split.database).any()
    assert np.isin(split.train, split.database).all()
    assert (split.protocol, split.headline_k) == (name, k)
    if not protocol.multi_label:
        assert set(source.class_counts(split.query)) == {query // classes}
        assert set(split.class_counts) == {train // classes}


@pytest.mark.parametrize("name", ["cifar10_59000", "mirflickr25k", "imagenet100"])
def test_datasets_of_another_size_are_refused(name):
    images, classes, queries, *_ = PUBLISHED[name]
    protocol = load_protocol(name)
    for count in (images - images // 10, images + images // 10):
        source = label_only(count, classes, protocol.multi_label)
        with pytest.raises(UserError, match=rf"found .*{count - queries} database"):
            make_split(source, protocol=protocol)


def test_one_missing_image_is_named_with_what_was_found_and_expected():
    source = label_only(59999, 10, False)
    with pytest.raises(UserError) as error:
        make_split(source, protocol=load_protocol("cifar10_5000"))
    assert str(error.value).startswith(
        "made-up (59999 images) does not fit protocol cifar10_5000:"
        " found 58999 database (expected 59000);"
    )


def test_balanced_draws_are_those_of_a_long_tail_of_factor_1(array_source):
    source = array_source(all=[100, 100])
    plain = make_split(source, imbalance_factor=1, n_max=20, queries_per_class=10, seed=3)
    split = make_split(source, protocol=small(), seed=3)
    assert digest(manifest(source, split)) == digest(manifest(source, plain))


def test_seeds_draw_alike_and_differently(array_source):
    source = array_source(all=[100, 100])
    one, same, other = (make_split(source, protocol=small(), seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one.query, same.query) and np.array_equal(one.train, same.train)
    assert not np.array_equal(one.query, other.query)


def test_each_concept_gives_its_images_and_none_is_drawn_twice():
    source = label_only(400, 8, True)
    indices = np.arange(400)
    drawn = draw_images(source, indices, Draw(per_class=12), "query images", [0])
    assert len(drawn) == len(set(drawn.tolist())) == 8 * 12
    assert (source.class_counts(drawn) >= 12).all()


def test_rare_concepts_are_drawn_before_common_ones_use_up_their_images():
    labels = np.zeros((20, 2), dtype=np.uint8)
    labels[:, 0] = 1
    labels[:5, 1] = 1  # the rare concept has only images of the common one
    source = replace(label_only(20, 2, True), labels=labels)
    for seed in range(10):
        drawn = draw_images(source, np.arange(20), Draw(per_class=5), "query images", [seed])
        assert np.isin(np.arange(5), drawn).all() and len(drawn) == 10


def test_unlabelled_images_are_searched_but_do_not_ask():
    source = label_only(100, 2, True)
    labels = source.labels.copy()
    labels[50:] = 0
    source = replace(source, labels=labels)
    expected = {"classes": (2, 2), "query": (50, 50), "train": (50, 50), "database": (50, 50)}
    protocol = small(multi_label=True, queries=Draw(total=50), train=None, expected=expected)
    split = make_split(source, protocol=protocol, validation_per_class=0)
    assert split.query.tolist() == list(range(50))
    assert split.database.tolist() == list(range(50, 100))


def test_published_lists_are_used_as_they_are(array_source):
    source = array_source(train=[20, 20], query=[10, 10], database=[90, 90])
    split = make_split(source, protocol=small(), validation_per_class=0)
    for role in ("train", "query", "database"):
        assert np.array_equal(getattr(split, role), source.subsets[role])
    with pytest.raises(UserError, match=r"found 39 train \(expected 40\); complete"):
        wrong = source.subsets | {"train": source.subsets["train"][1:]}
        make_split(replace(source, subsets=wrong), protocol=small())


def test_training_images_are_drawn_where_the_publisher_gives_only_queries(array_source):
    source = array_source(train=[90, 90], test=[10, 10])
    split = make_split(source, protocol=small(), validation_per_class=0)
    assert np.array_equal(split.query, source.subsets["test"])
    assert split.class_counts.tolist() == [20, 20] and len(split.database) == 180


def test_too_many_published_queries_say_to_join(array_source):
    source = array_source(train=[80, 80], test=[20, 20])
    with pytest.raises(UserError, match=r"found 40 query \(expected 20\).*join: True"):
        make_split(source, protocol=small())


def test_validation_is_held_out_of_training_only_where_that_is_the_database(array_source):
    source = array_source(all=[100, 100])
    drawn = make_split(source, protocol=small(), validation_per_class=5)
    assert len(drawn.train) == 40 and len(drawn.validation) == 10
    whole = {**small().expected, "train": (180, 180)}
    split = make_split(source, protocol=small(train=None, expected=whole), validation_per_class=5)
    assert (len(split.train), len(split.validation), len(split.database)) == (170, 10, 180)
    assert np.isin(split.validation, split.database).all()
    assert not np.isin(split.validation, split.train).any()
    assert split.class_counts.tolist() == [90, 90]


@pytest.mark.parametrize("multi_label", [False, True])
def test_manifests_name_the_protocol_and_bring_it_back(tmp_path, multi_label):
    source = label_only(200, 2, multi_label)
    split = make_split(source, protocol=small(multi_label=multi_label))
    write_json(tmp_path / "split.json", manifest(source, split))
    again = read_split(tmp_path / "split.json", source)
    assert (again.protocol, again.headline_k) == ("small", 50)
    for role in ("train", "validation", "query", "database"):
        assert np.array_equal(getattr(again, role), getattr(split, role))


@pytest.mark.parametrize(
    "options", [{"imbalance_factor": 1}, {"n_max": 5}, {"mu": 0.5}, {"queries_per_class": 2}]
)
def test_options_that_a_protocol_settles_are_refused_beside_it(array_source, options):
    name, value = next(iter(options.items()))
    with pytest.raises(UserError, match=f"{name} is {value} beside protocol small"):
        make_split(array_source(all=[100, 100]), protocol=small(), **options)


def test_other_classes_or_labels_are_refused(array_source):
    with pytest.raises(UserError, match=r"found 3 classes \(expected 2\)"):
        make_split(array_source(all=[100] * 3), protocol=small())
    with pytest.raises(UserError, match="have several labels, expected one label"):
        make_split(array_source(True, all=[100] * 2), protocol=small())


@pytest.mark.parametrize(
    ("counts", "draw", "said"),
    [
        ([100, 9], Draw(per_class=10), "10 query images .* the 9 images of class 'class 1'"),
        ([3, 3], Draw(total=7), "7 query images .* the 6 images of made-up"),
    ],
)
def test_draws_beyond_the_images_are_refused(array_source, counts, draw, said):
    source = array_source(all=counts)
    with pytest.raises(UserError, match=said):
        draw_images(source, source.subsets["all"], draw, "query images", [0])


def written(path, **changes):
    value = yaml.safe_load((FOLDER / "cifar10_5000.yaml").read_text())
    path.write_text(yaml.safe_dump({**value, **changes}))
    return str(path)


def test_own_files_are_read_by_path(tmp_path):
    path = written(tmp_path / "mine.yaml", metric="MAP@7", queries={"total": 5})
    protocol = load_protocol(path)
    assert (protocol.name, protocol.headline_k) == ("mine", 7)
    assert protocol.queries == Draw(total=5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric": "MAP"}, "metric is 'MAP'; expected MAP@ALL or MAP@K"),
        ({"metric": "MAP@0"}, "metric is 'MAP@0'"),
        ({"labels": "many"}, "labels is 'many'; expected single or multi"),
        ({"database": "all"}, "database is 'all'; expected rest"),
        ({"queries": {"per_clas": 3}}, "queries.per_clas: did you mean 'per_class'"),
        ({"queries": {"per_class": 3, "total": 4}}, "queries is .*; expected {per_class: n}"),
        ({"queries": {"total": 0}}, "queries is .*; expected {per_class: n}"),
        ({"train": 500}, "train is 500; expected keys per_class, total"),
        ({"expected": {"classes": 10}}, "expected lacks query, train, database"),
        ({"seed": 3}, "protocol.seed: did you mean"),
    ],
)
def test_files_without_meaning_are_refused(tmp_path, changes, said):
    with pytest.raises(UserError, match=said) as error:
        load_protocol(written(tmp_path / "mine.yaml", **changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [[5, 4], [1], "all", True, 0])
def test_expected_counts_are_a_number_or_a_range(tmp_path, value):
    expected = {"classes": 10, "query": 1000, "train": 5000, "database": value}
    with pytest.raises(UserError, match=r"expected\.database is .*; expected n or \[least, most\]"):
        load_protocol(written(tmp_path / "mine.yaml", expected=expected))


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16"])
def test_files_may_have_passed_through_an_editor_of_windows(tmp_path, coding):
    text = (FOLDER / "mirflickr25k.yaml").read_text().replace("\n", "\r\n")
    (tmp_path / "mirflickr25k.yaml").write_bytes(text.encode(coding))
    assert load_protocol(str(tmp_path / "mirflickr25k.yaml")) == load_protocol("mirflickr25k")


def test_unknown_names_and_unreadable_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="'cifar'; expected one of cifar10_5000, cifar10_59000"):
        load_protocol("cifar")
    with pytest.raises(UserError, match="no such file"):
        load_protocol(str(tmp_path / "absent.yaml"))
    (tmp_path / "broken.yaml").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        load_protocol(str(tmp_path / "broken.yaml"))
    (tmp_path / "list.yaml").write_text("[]")
    with pytest.raises(UserError, match=r"protocol is .*; expected keys dataset"):
        load_protocol(str(tmp_path / "list.yaml"))
