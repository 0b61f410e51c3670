import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data.images
from data.augment import Augmentation, evaluation_batch, normalise
from data.image_folder import create_source
from data.images import ArrayImages, FileImages, open_images
from data.samplers import evaluation_batches
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def small(write_images):
    return create_source(write_images({"train/a": 5, "train/b": 4, "test/b": 2}))


@pytest.fixture
def large(write_image, tmp_path):
    for index, size in enumerate([(120, 100), (100, 150), (110, 110), (300, 97)]):
        write_image(f"train/a/{index}.png", size)
    write_image("train/b/0.png", (130, 100))
    return create_source(tmp_path)


def collect(images, source, training=False, size=8, seed=0, **options):
    batches = evaluation_batches(np.arange(len(source)), 3)
    augmentation = Augmentation(size)
    found = images.batches(
        batches, augmentation, training=training, seed=seed, device=CPU, **options
    )
    tensors, indices = zip(*found, strict=True)
    assert [part.tolist() for part in indices] == [batch.tolist() for batch in batches]
    return torch.cat(tensors)


def test_small_files_are_cached_as_an_array_of_their_pixels(small):
    images = open_images(small)
    assert isinstance(images, ArrayImages) and images.array.shape == (11, 8, 8, 3)
    for index in range(11):
        assert np.array_equal(images.array[index], np.asarray(small.read(index)))


def test_auto_takes_the_largest_side_of_the_first_images(write_image, small):
    write_image("train/b/000.png", (60, 96))
    images = open_images(small)
    assert images.array.shape == (11, 96, 96, 3)
    assert np.array_equal(images.array[0], np.asarray(small.read(0).resize((96, 96), 3)))
    write_image("train/b/000.png", (60, 97))
    assert isinstance(open_images(small), FileImages)


def test_cache_size_forces_either_form(large):
    assert isinstance(open_images(large), FileImages)
    images = open_images(large, 20)
    assert images.array.shape == (5, 20, 20, 3)
    square = large.read(2).resize((20, 20), Image.Resampling.BICUBIC)
    assert np.array_equal(images.array[2], np.asarray(square))
    centre = large.read(0).resize((24, 20), Image.Resampling.BICUBIC).crop((2, 0, 22, 20))
    assert np.array_equal(images.array[0], np.asarray(centre))
    assert isinstance(open_images(large, None), FileImages)
    for wrong in (0, "big", 1.5):
        with pytest.raises(UserError, match="cache_size"):
            open_images(large, wrong)


def test_memory_sources_are_used_as_they_are(array_source):
    source = array_source(train=[2, 2])
    assert open_images(source).array is source.arrays


def test_the_cache_is_used_again_and_follows_changed_files(small, write_image, monkeypatch):
    decoded = []
    original = data.images._decode_into
    monkeypatch.setattr(data.images, "_decode_into", lambda *a: decoded.append(1) or original(*a))
    first = np.array(open_images(small).array)
    assert np.array_equal(open_images(small).array, first) and len(decoded) == 1
    write_image("train/a/002.png", seed=5)
    second = open_images(small).array
    assert len(decoded) == 2
    assert np.flatnonzero((second != first).any((1, 2, 3))).tolist() == [2]
    reordered = replace(small, image_names=small.image_names[::-1])
    assert np.array_equal(open_images(reordered).array, second[::-1])


@pytest.mark.parametrize("spoil", [b"", b"\x93NUMPY", None])
def test_a_spoilt_cache_is_made_anew(small, spoil):
    expected = np.array(open_images(small).array)
    (cache,) = (small.root / ".lth_cache").glob("*.npy")
    cache.write_bytes(cache.read_bytes()[:-1] if spoil is None else spoil)
    assert np.array_equal(open_images(small).array, expected)


def test_read_only_datasets_use_the_users_cache_or_memory(small, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    (small.root / ".lth_cache").write_text("a file where the folder would be")
    pixels = np.stack([np.asarray(small.read(index)) for index in range(11)])
    assert np.array_equal(open_images(small).array, pixels)
    assert len(list((tmp_path / "user").rglob("*.npy"))) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(small.path(0)))
    assert np.array_equal(open_images(small).array, pixels)


def test_two_processes_may_make_the_cache_at_once(small):
    code = (
        "import sys, hashlib\n"
        "from data.image_folder import create_source\n"
        "from data.images import open_images\n"
        "array = open_images(create_source(sys.argv[1])).array\n"
        "print(hashlib.sha256(array.tobytes()).hexdigest())\n"
    )
    command = [sys.executable, "-c", code, str(small.root)]
    root = Path(__file__).parents[2]
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=root)
        for _ in range(2)
    ]
    results = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], results
    assert results[0][0] == results[1][0] != b""
    names = sorted(path.suffix for path in (small.root / ".lth_cache").iterdir())
    assert names == [".json", ".npy"]


def test_a_killed_run_leaves_no_cache(small, monkeypatch):
    def fail(array, source, size):
        array[0] = 1
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(data.images, "_decode_into", fail)
        with pytest.raises(KeyboardInterrupt):
            open_images(small)
    assert list((small.root / ".lth_cache").glob("*.npy")) == []
    assert np.array_equal(open_images(small).array[0], np.asarray(small.read(0)))


def test_a_broken_file_is_named_while_decoding(small):
    path = small.path(6)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=str(path)):
        open_images(small)
    small.path(0).write_bytes(b"x")
    with pytest.raises(UserError, match=str(small.path(0))):
        open_images(small)


def test_digests_tell_contents_apart(small, write_image):
    small.path(3).write_bytes(small.path(0).read_bytes())
    for images in (open_images(small), open_images(small, None)):
        digests = images.digests(np.arange(11))
        assert digests[3] == digests[0] and len(set(digests)) == 10
        assert images.digests(np.array([5, 0])) == [digests[5], digests[0]]


def test_array_evaluation_batches_are_the_normalised_images(small):
    images = open_images(small)
    expected = torch.from_numpy(np.array(images.array)).permute(0, 3, 1, 2)
    for size in (8, 12):
        own = collect(images, small, size=size)
        torch.testing.assert_close(own, evaluation_batch(expected, Augmentation(size)))


def test_the_array_is_uploaded_once(small):
    images = open_images(small)
    assert images.resident(CPU) is images.resident("cpu")
    assert images.resident(CPU).shape == (11, 3, 8, 8)


@pytest.mark.parametrize("cache_size", ["auto", None])
def test_training_batches_depend_on_the_seed_alone(small, cache_size):
    images = open_images(small, cache_size)
    one, same, other = (collect(images, small, training=True, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("training", [True, False])
def test_workers_give_what_the_main_process_gives(large, training):
    images = open_images(large, None)
    alone = collect(images, large, training=training, size=16)
    assert alone.shape == (5, 3, 16, 16)
    assert torch.equal(collect(images, large, training=training, size=16, num_workers=2), alone)


def test_file_evaluation_is_the_resized_centre(large):
    own = collect(FileImages(large), large, size=28)
    image = large.read(0).resize((38, 32), Image.Resampling.BILINEAR)
    centre = np.asarray(image.crop((5, 2, 33, 30))).transpose(2, 0, 1)
    expected = normalise(torch.from_numpy(centre.copy())[None].float(), Augmentation(28))
    torch.testing.assert_close(own[:1], expected)


def test_file_training_crops_a_plain_image_to_itself(tmp_path):
    for name, colour in (("a", (10, 20, 30)), ("b", (200, 100, 50))):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (120, 140), colour).save(tmp_path / "train" / name / "x.png")
    source = create_source(tmp_path)
    own = collect(FileImages(source), source, training=True, size=16)
    plain = torch.tensor([[10.0, 20, 30], [200, 100, 50]])[:, :, None, None].expand(2, 3, 16, 16)
    torch.testing.assert_close(own, normalise(plain, Augmentation(16)))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_unreadable_image_comes_out_of_a_worker_as_one_line(large, num_workers):
    path = large.path(3)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=str(path)) as error:
        collect(FileImages(large), large, num_workers=num_workers)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_the_gpu_equal_those_on_the_cpu(small, large):
    for source, cache_size in ((small, "auto"), (large, None)):
        images = open_images(source, cache_size)
        batches = evaluation_batches(np.arange(len(source)), 3)
        options = {"training": False, "seed": 0, "num_workers": 0}
        cpu = [x for x, _ in images.batches(batches, Augmentation(16), device=CPU, **options)]
        gpu = images.batches(batches, Augmentation(16), device=torch.device("cuda"), **options)
        for one, (other, _) in zip(cpu, gpu, strict=True):
            torch.testing.assert_close(one, other.cpu(), atol=1e-3, rtol=1e-3)


def test_auto_names_a_first_image_too_large_to_open(small, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8)
    with pytest.raises(UserError, match=r"train/a/000\.png cannot be read") as error:
        open_images(small)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cache_size", [0, -1, "large"])
def test_cache_size_is_checked_for_images_in_memory_too(array_source, cache_size):
    with pytest.raises(UserError, match="cache_size is"):
        open_images(array_source(train=[1, 1]), cache_size)
