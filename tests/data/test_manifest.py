"""A manifest names a split and brings it back exactly."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.manifest import digest, manifest, read_split
from data.open_classes import hold_out_classes
from data.split import Split, make_split
from utils.atomic_file import write_json
from utils.errors import UserError


def equal(one: Split, other: Split) -> bool:
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        for field in fields(Split)
    )


def test_manifest_names_sizes_and_images(balanced):
    split = make_split(balanced, imbalance_factor=10, seed=1)
    value = manifest(balanced, split)
    assert [row["size"] for row in value["classes"]] == [40, 16, 9, 6, 5, 4]
    for row in value["classes"]:
        assert split.class_counts[balanced.class_names.index(row["name"])] == row["size"]
    assert value["train"] == [balanced.image_names[i] for i in split.train]
    assert value["query"] is None and value["roles"]["database"]["count"] == 240
    assert (value["n_max"], value["seed"], value["imbalance_factor"]) == (40, 1, 10)
    assert json.loads(json.dumps(value)) == value


def test_digest_changes_with_any_role_label_or_name_but_not_with_the_order(balanced):
    split = make_split(balanced, imbalance_factor=10)
    digests = {digest(manifest(balanced, split))}
    for role in ("train", "validation", "query", "database"):
        changed = replace(split, **{role: getattr(split, role)[1:]})
        digests.add(digest(manifest(balanced, changed)))
    labels = balanced.labels.copy()
    labels[-1] = 0
    digests.add(digest(manifest(replace(balanced, labels=labels), split)))
    names = [*balanced.image_names[:-1], "other"]
    digests.add(digest(manifest(replace(balanced, image_names=names), split)))
    assert len(digests) == 7

    order = np.random.default_rng(0).permutation(len(balanced))
    place = np.argsort(order)
    shuffled = replace(
        balanced,
        image_names=[balanced.image_names[i] for i in order],
        labels=balanced.labels[order],
    )
    roles = ("train", "validation", "query", "database")
    moved = replace(split, **{role: np.sort(place[getattr(split, role)]) for role in roles})
    assert digest(manifest(shuffled, moved)) == digest(manifest(balanced, split))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda value: (
        st.lists(value, max_size=3) | st.dictionaries(st.text(max_size=3), value, max_size=3)
    ),
    max_leaves=5,
)


DESCRIBED = {  # what the digest does not cover
    "imbalance_factor": (int, float, type(None)),
    "mu": (int, float, type(None)),
    "protocol": (str,),
    "seed": (int,),
}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_manifest_with_any_value_changed_is_refused_in_one_line(balanced, tmp_path, data):
    value = manifest(balanced, make_split(balanced, imbalance_factor=10))
    key = data.draw(st.sampled_from(sorted(value)))
    value[key] = new = data.draw(JSON.filter(lambda new: new != value[key]))
    (tmp_path / "split.json").write_text(json.dumps(value))
    if (
        key in DESCRIBED
        and type(new) in DESCRIBED[key]
        and (isinstance(new, str) or not new or new > 0)
    ):
        return  # says nothing of images and labels
    with pytest.raises(UserError) as error:
        read_split(tmp_path / "split.json", balanced)
    assert "split.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[" * 100_000, b"{}", b"[1]", b'{"classes": 5}']
)
def test_files_that_are_no_manifest_are_refused(balanced, tmp_path, content):
    (tmp_path / "split.json").write_bytes(content)
    with pytest.raises(UserError, match=r"split\.json is not a manifest"):
        read_split(tmp_path / "split.json", balanced)


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16"])
def test_a_manifest_may_have_passed_through_an_editor_of_windows(balanced, tmp_path, coding):
    split = make_split(balanced, imbalance_factor=10)
    text = json.dumps(manifest(balanced, split), indent=1).replace("\n", "\r\n")
    (tmp_path / "split.json").write_bytes(text.encode(coding))
    assert equal(read_split(tmp_path / "split.json", balanced), split)


@pytest.mark.parametrize(("factor", "start"), [(None, "d5a253ddffde"), (4, "ee8f808b6c07")])
def test_splits_and_digests_stay_the_same_between_versions(array_source, factor, start):
    source = array_source(all=[9, 9, 9])
    split = make_split(source, imbalance_factor=factor, validation_per_class=2)
    assert digest(manifest(source, split))[:12] == start


@pytest.mark.parametrize("factor", [None, 4])
def test_written_splits_are_read_back_exactly(tmp_path, array_source, factor):
    sources = [array_source(train=[40] * 3, test=[5] * 3), array_source(all=[40] * 3)]
    sources.append(hold_out_classes(array_source(train=[20] * 4, test=[5] * 4), 1, 0))
    for source in sources:
        split = make_split(source, imbalance_factor=factor, seed=5)
        written = manifest(source, split)
        write_json(tmp_path / "split.json", written)
        assert written == json.loads((tmp_path / "split.json").read_text())
        assert equal(read_split(tmp_path / "split.json", source), split)


def test_splits_that_do_not_fit_are_refused(tmp_path, balanced):
    path = tmp_path / "split.json"
    split = make_split(balanced, imbalance_factor=10)
    value = manifest(balanced, split)
    write_json(path, value)
    renamed = replace(balanced, image_names=[f"x{i}" for i in range(len(balanced))])
    with pytest.raises(UserError, match=r"names \d+ images that made-up lacks, first 'image/"):
        read_split(path, renamed)
    smaller = replace(balanced, subsets=balanced.subsets | {"test": np.arange(240, 260)})
    with pytest.raises(UserError, match="does not fit dataset made-up"):
        read_split(path, smaller)
    path.write_text(json.dumps(value | {"train": value["train"][1:]}))
    with pytest.raises(UserError, match="does not fit"):
        read_split(path, balanced)
    for text in ("{", "{}", "[]"):
        path.write_text(text)
        with pytest.raises(UserError, match="is not a manifest"):
            read_split(path, balanced)
    with pytest.raises(UserError, match="is not a manifest"):
        read_split(tmp_path / "absent.json", balanced)
