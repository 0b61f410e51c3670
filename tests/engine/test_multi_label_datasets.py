"""NUS-WIDE and MIRFlickr-25K, small and made up in their original layouts, all the way to figures.

The protocols are the published ones with their counts scaled down; everything else is as for the
real images.
"""

import math

import numpy as np
import pytest
import yaml
from PIL import Image
from small_config import make_config

from data.protocol import FOLDER
from engine.experiment import check_data, train_and_test
from engine.run import open_run
from utils.errors import UserError

IMAGES, CONCEPTS = 150, 5
SMALL = {  # queries and training images, and what they give of 150 images, 16 of them unlabelled
    "nus_wide_tc21": {
        "queries": {"per_class": 4},
        "train": {"per_class": 6},
        "expected": {"classes": 4, "query": 16, "train": 24},
    },
    "mirflickr25k": {
        "queries": {"total": 20},
        "expected": {"classes": 5, "query": 20, "train": 130, "database": 130},
    },
}
DATA = {
    "nus_wide_tc21": {"def_file": "./data/nus_wide.py", "params": {"concepts": 4}},
    "mirflickr25k": {"def_file": "./data/mirflickr.py", "params": {}},
}


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """Both datasets, of the same made-up images and concepts."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    shown = rng.random((IMAGES, CONCEPTS)) < [0.5, 0.4, 0.3, 0.25, 0.1]
    shown[:16] = False
    concepts = ["sky", "person", "water", "animal", "grass"]
    names = [f"folder{i % 3}/{i:04d}_{i}.jpg" for i in range(IMAGES)]
    for number, name in enumerate(names, start=1):
        pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        for path in (f"NUS_WIDE/Flickr/{name}", f"MIRFlickr/mirflickr/im{number}.jpg"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / path)
    lines = [name.replace("/", "\\") for name in names]
    write(root / "NUS_WIDE/ImageList/Imagelist.txt", lines)
    for concept, column in zip(concepts, shown.T, strict=True):
        labels = root / f"NUS_WIDE/Groundtruth/AllLabels/Labels_{concept}.txt"
        write(labels, column.astype(int))
        numbers = np.flatnonzero(column) + 1
        write(root / f"MIRFlickr/annotations/{concept}.txt", numbers)
        write(root / f"MIRFlickr/annotations/{concept}_r1.txt", numbers[:2])
    return root, shown


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\r\n" for line in lines).encode())


def config(folder, name, data_root, **changes):
    """A small run under a published protocol with its counts scaled down."""
    root, shown = data_root
    value = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    value |= SMALL[name]
    value["metric"] = value["metric"].replace("5000", "50")
    if name == "nus_wide_tc21":
        kept = shown[:, :4].any(1).sum()  # the grass is the rarest
        value["expected"] = {"database": int(kept) - 16, **value["expected"]}
    value["expected"] |= changes.pop("expected", {})
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(value))
    return make_config(
        folder / "run",
        data_root=str(root),
        imbalance_factor=None,
        data={
            **DATA[name],
            "queries_per_class": None,
            "protocol": str(folder / f"{name}.yaml"),
        },
        criterions={"classification": {"def_file": "./loss/binary_cross_entropy.py"}},
        sampler="class_aware",
    )


@pytest.mark.parametrize("name", SMALL)
def test_from_the_published_layout_to_figures(tmp_path, data_root, name, capsys):
    run = config(tmp_path, name, data_root)
    assert check_data(run)
    assert f"protocol {name}, MAP@" in capsys.readouterr().out
    metrics = train_and_test(run)
    expected = SMALL[name]["expected"]
    assert metrics["counts"]["query"] == expected["query"]
    held_out = metrics["counts"]["validation"] if name == "mirflickr25k" else 0
    assert metrics["counts"]["train"] == expected["train"] - held_out
    assert metrics["metric"] == ("MAP@50" if name == "nus_wide_tc21" else "MAP@ALL")
    assert 0 < metrics["headline"] <= 1 and metrics["queries_without_relevant"] == 0
    assert all(math.isfinite(value) for value in metrics["map_per_class"])


@pytest.mark.parametrize("name", SMALL)
def test_batches_carry_the_labels_of_the_annotation_files(tmp_path, data_root, name):
    _, shown = data_root
    run = open_run(config(tmp_path, name, data_root))
    dataset, source = run.dataset, run.dataset.source
    columns = [["sky", "person", "water", "animal", "grass"].index(c) for c in source.class_names]
    batches = [dataset.split.train[:7], dataset.split.query[:5]]
    for (images, labels), batch in zip(
        dataset.batches(batches, run.augmentation), batches, strict=True
    ):
        assert images.shape == (len(batch), 3, 8, 8)
        numbers = [int(source.image_names[i].split("_")[-1].strip("im.jpg")) for i in batch]
        rows = np.array(numbers) - (name == "mirflickr25k")
        assert np.array_equal(labels.numpy(), shown[rows][:, columns])


@pytest.mark.parametrize("name", SMALL)
def test_other_counts_are_refused(tmp_path, data_root, name, capsys):
    run = config(tmp_path, name, data_root, expected={"query": 2100})
    assert not check_data(run)
    assert "(expected 2100)" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"found \d+ query \(expected 2100\)"):
        train_and_test(run)
