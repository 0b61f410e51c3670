import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data.images
from data.augment import Augmentation, evaluation_batch
from data.check import check_source
from data.faults import DataError
from data.file_images import FileImages
from data.image_folder import create_source
from data.images import ArrayImages, open_images
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


@pytest.mark.parametrize("decoder", ["data.images.DECODING", "PIL.__version__"])
def test_another_decoding_is_not_given_the_old_pixels(small, monkeypatch, decoder):
    open_images(small)
    monkeypatch.setattr(decoder, "0.1")
    monkeypatch.setattr(data.images, "_decode_into", lambda array, source: array.fill(7))
    assert (open_images(small).array == 7).all()
    monkeypatch.undo()
    assert np.array_equal(open_images(small).array[4], np.asarray(small.read(4)))


def test_features_that_are_no_numbers_are_named_before_training(array_source):
    source = array_source(train=[2, 2])
    features = np.ones((4, 3), np.float32)
    features[1, 0], features[3, 2] = np.nan, -np.inf
    source = replace(source, arrays=None, features=features)
    with pytest.raises(DataError) as error:
        open_images(source)
    assert (
        error.value.faults
        == [f"features of image/{i:05d} are NaN or infinite" for i in (1, 3)]
        == check_source(source).unreadable
    )


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
    assert names == [".npy"]


def test_a_killed_run_leaves_no_cache(small, monkeypatch):
    def fail(array, source):
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


def test_a_broken_file_among_many_is_named_and_leaves_no_cache(write_images, monkeypatch):
    monkeypatch.setattr(data.images, "available_cores", lambda: 2)
    source = create_source(write_images({"train/a": 600, "train/b": 400}))
    source.path(701).write_bytes(source.path(701).read_bytes()[:60])
    with pytest.raises(UserError, match=str(source.path(701))) as error:
        open_images(source)
    assert "\n" not in str(error.value)
    assert list((source.root / ".lth_cache").iterdir()) == []
    source.path(701).write_bytes(source.path(3).read_bytes())
    array = open_images(source).array
    assert np.array_equal(array[701], array[3])


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


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sizes", [[1, 2, 8], [300, 1, 400, 200]])
def test_batches_made_at_once_are_usable_one_by_one(array_source, sizes, training):
    images = ArrayImages(array_source(train=[500, 500]).arrays)
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 1000, size) for size in sizes]
    options = {"training": training, "seed": 3, "device": CPU}
    found = list(images.batches(batches, Augmentation(4), **options))
    for (own, indices), batch in zip(found, batches, strict=True):
        assert own.is_contiguous() and indices.dtype == torch.int64
        assert indices.tolist() == batch.tolist()
    again = images.batches(batches, Augmentation(4), **options)
    assert all(torch.equal(one, two) for (one, _), (two, _) in zip(found, again, strict=True))
    if not training:
        rows = torch.from_numpy(images.array[np.concatenate(batches)]).permute(0, 3, 1, 2)
        expected = evaluation_batch(rows, Augmentation(4))
        torch.testing.assert_close(torch.cat([own for own, _ in found]), expected)
    assert list(images.batches([], Augmentation(4), **options)) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_arrays_on_the_gpu_are_channels_last_and_never_waited_for(small):
    images = open_images(small)
    gpu = torch.device("cuda")
    batches = evaluation_batches(np.arange(11), 3)
    for size in (8, 16):
        augmentation = Augmentation(size, color_jitter=(0.4, 0.4, 0.4, 0.1))
        options = {"seed": 0, "device": gpu}
        list(images.batches(batches, augmentation, training=True, **options))  # constants
        list(images.batches(batches, augmentation, training=False, **options))
        torch.cuda.set_sync_debug_mode("error")
        try:
            trained = list(images.batches(batches, augmentation, training=True, **options))
            seen = list(images.batches(batches, augmentation, training=False, **options))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        for own, indices in trained + seen:
            assert own.is_contiguous(memory_format=torch.channels_last) and indices.is_cuda
        own = torch.cat([part for part, _ in seen]).cpu()
        expected = collect(images, small, size=size)
        torch.testing.assert_close(own, expected, atol=1e-3, rtol=1e-3)


def test_the_array_is_uploaded_once(small):
    images = open_images(small)
    assert images.resident(CPU) is images.resident("cpu")
    assert images.resident(CPU).shape == (11, 3, 8, 8)


@pytest.mark.parametrize("cache_size", ["auto", None])
def test_training_batches_depend_on_the_seed_alone(small, cache_size):
    images = open_images(small, cache_size)
    one, same, other = (collect(images, small, training=True, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_auto_names_a_first_image_too_large_to_open(small, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8)
    with pytest.raises(UserError, match=r"train/a/000\.png cannot be read") as error:
        open_images(small)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cache_size", [0, -1, "large"])
def test_cache_size_is_checked_for_images_in_memory_too(array_source, cache_size):
    with pytest.raises(UserError, match="cache_size is"):
        open_images(array_source(train=[1, 1]), cache_size)


def test_decode_is_checked(small):
    assert open_images(small, None, decode="cpu").decode == "cpu"
    with pytest.raises(UserError, match="decode is 'tpu'; expected one of auto, cpu, gpu"):
        open_images(small, decode="tpu")
