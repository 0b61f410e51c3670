import gc
import threading
from multiprocessing import active_children

import numpy as np
import pytest
import torch
from PIL import Image

import data.file_images
import data.jpeg
from data.augment import Augmentation, normalise
from data.file_images import FileImages, stream_batches
from data.file_reader import FileReader, collate
from data.image_folder import create_source
from data.jpeg_files import MAX_SIDE
from data.prefetch import prefetch
from data.samplers import evaluation_batches
from utils.errors import UserError

CPU = torch.device("cpu")
SIZES = [(120, 100), (100, 150), (110, 110), (300, 97), (130, 100)]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def smooth(size, seed=0, channels=3):
    """A picture of waves: decoders and interpolations may differ on noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[1], : size[0]][..., None] / 40
    waves = np.sin(x * rng.uniform(0.5, 1.5, channels) + y * rng.uniform(0.5, 1.5, channels) + seed)
    return Image.fromarray(np.squeeze(128 + 100 * waves).astype(np.uint8))


@pytest.fixture
def large(write_image, tmp_path):
    for index, size in enumerate(SIZES[:4]):
        write_image(f"train/a/{index}.png", size)
    write_image("train/b/0.png", SIZES[4])
    return create_source(tmp_path)


@pytest.fixture
def jpegs(tmp_path):
    """JPEG files of several sizes, and one of every kind that a GPU does not decode."""
    for name in "ab":
        (tmp_path / "train" / name).mkdir(parents=True)
    for index, size in enumerate(SIZES):
        smooth(size, index).save(tmp_path / f"train/a/{index}.jpg", quality=95)
    smooth((90, 120), 5, channels=1).save(tmp_path / "train/a/grey.jpg", quality=95)
    smooth((90, 120), 6).convert("CMYK").save(tmp_path / "train/b/cmyk.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth((140, 100), 7).save(tmp_path / "train/b/turned.jpg", quality=95, exif=exif)
    smooth((140, 100), 8).save(tmp_path / "train/b/other.png")
    smooth((140, 100), 9).save(tmp_path / "train/b/slow.jpg", quality=95, progressive=True)
    smooth((MAX_SIDE + 1, 80), 10).save(tmp_path / "train/b/wide.jpg", quality=95)
    return create_source(tmp_path)


def prefetching():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def batches_of(source, length=3):
    return evaluation_batches(np.arange(len(source)), length)


def collect(images, source, training=False, size=16, seed=0, num_workers=0, device=CPU):
    batches = batches_of(source)
    options = {"training": training, "seed": seed, "device": device, "num_workers": num_workers}
    tensors, indices = zip(*images.batches(batches, Augmentation(size), **options), strict=True)
    assert [part.tolist() for part in indices] == [batch.tolist() for batch in batches]
    return torch.cat(tensors)


def stream(source, augmentation, training, keep_jpegs, num_workers=0, device=CPU):
    """Return all images in 0..255, decoded by workers, or as on the device."""
    reader = FileReader(source, augmentation, training, 4, keep_jpegs)
    found = stream_batches(reader, batches_of(source, 4), device, num_workers)
    return torch.cat([images for images, _ in found]) * 255


PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.mark.parametrize("training", [True, False])
def test_workers_give_what_the_main_process_gives(large, training):
    images = FileImages(large)
    alone = collect(images, large, training=training)
    assert alone.shape == (5, 3, 16, 16)
    assert torch.equal(collect(images, large, training=training, num_workers=2), alone)


def test_training_batches_depend_on_the_seed_alone(large):
    images = FileImages(large)
    one, same, other = (collect(images, large, training=True, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_evaluation_is_the_resized_centre(large):
    own = collect(FileImages(large), large, size=28)
    image = large.read(0).resize((38, 32), Image.Resampling.BILINEAR)
    centre = np.asarray(image.crop((5, 2, 33, 30))).transpose(2, 0, 1)
    expected = normalise(torch.from_numpy(centre.copy())[None].float(), Augmentation(28))
    grey_level = 1 / 255 / 0.22  # the centre's edges are floats, and Pillow rounds its weights
    torch.testing.assert_close(own[:1], expected, atol=1.1 * grey_level, rtol=0)
    assert ((own[:1] - expected).abs() > 1e-5).float().mean() < 0.01


def test_training_crops_a_plain_image_to_itself(tmp_path):
    for name, colour in (("a", (10, 20, 30)), ("b", (200, 100, 50))):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (120, 140), colour).save(tmp_path / "train" / name / "x.png")
    source = create_source(tmp_path)
    own = collect(FileImages(source), source, training=True)
    plain = torch.tensor([[10.0, 20, 30], [200, 100, 50]])[:, :, None, None].expand(2, 3, 16, 16)
    torch.testing.assert_close(own, normalise(plain, Augmentation(16)))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_unreadable_image_comes_out_of_a_worker_as_one_line(large, num_workers):
    path = large.path(3)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=str(path)) as error:
        collect(FileImages(large), large, num_workers=num_workers)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("size", "fraction"), [(24, 0.875), (150, 0.875), (24, 1.0)])
def test_crops_on_the_device_are_those_of_pillow(jpegs, training, size, fraction, interpolation):
    augmentation = Augmentation(
        size, interpolation=interpolation, crop_fraction=fraction, crop_scale=(0.1, 1.0), **PLAIN
    )
    device, pillow = (stream(jpegs, augmentation, training, kept) for kept in (True, False))
    assert device.shape == (11, 3, size, size)
    assert (device - pillow).abs().amax((1, 2, 3)).max() <= 3  # decoders differ by 1, too
    assert (device - pillow).abs().mean() < 0.6  # rounding


def test_colours_on_the_device_are_those_of_the_other_path(jpegs):
    augmentation = Augmentation(20, color_jitter=(0.4, 0.4, 0.4, 0.0), **PLAIN)
    device, pillow = (stream(jpegs, augmentation, True, kept) for kept in (True, False))
    assert (device - pillow).abs().mean() < 1


@pytest.mark.parametrize("training", [True, False])
def test_files_decoded_on_the_device_do_not_depend_on_workers(jpegs, training):
    augmentation = Augmentation(20, color_jitter=(0.4, 0.4, 0.4, 0.1))
    alone, others = (stream(jpegs, augmentation, training, True, workers) for workers in (0, 2))
    assert torch.equal(alone, others)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("at_once", [6, 100])
def test_batches_made_at_once_are_those_made_one_by_one(jpegs, at_once, num_workers, monkeypatch):
    expected = stream(jpegs, Augmentation(20), True, True)
    monkeypatch.setattr(data.file_images, "_images_at_once", lambda reader, device, total: at_once)
    reader = FileReader(jpegs, Augmentation(20), True, 4, True)
    batches = batches_of(jpegs, 4)
    images, indices = zip(*stream_batches(reader, batches, CPU, num_workers), strict=True)
    assert [part.tolist() for part in indices] == [batch.tolist() for batch in batches]
    assert [len(part) for part in images] == [len(batch) for batch in batches]
    assert torch.equal(torch.cat(images) * 255, expected)


@pytest.mark.parametrize("most", [1, 60_000])
def test_a_batch_decoded_in_pieces_is_the_same(jpegs, most, monkeypatch):
    expected = stream(jpegs, Augmentation(20), True, True)
    monkeypatch.setattr(data.file_images, "DECODED_BYTES", most)
    assert torch.equal(stream(jpegs, Augmentation(20), True, True), expected)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_broken_image_among_batches_made_at_once_is_named(jpegs, num_workers, monkeypatch):
    monkeypatch.setattr(data.file_images, "_images_at_once", lambda reader, device, total: 6)
    path = jpegs.path(5)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match=f"image {path} cannot be read"):
        stream(jpegs, Augmentation(20), True, True, num_workers)


def test_few_images_are_shared_among_workers_and_cpus_take_batches_as_they_are(jpegs):
    reader = FileReader(jpegs, Augmentation(20), True, 0, keep_jpegs=True)
    gpu, at_once = torch.device("cuda", 0), data.file_images._images_at_once
    assert [at_once(reader, gpu, total) for total in (5, 160, 10**6)] == [1, 10, 256]
    assert at_once(reader, CPU, 10**6) == 1
    decoding = FileReader(jpegs, Augmentation(20), True, 0, keep_jpegs=False)
    assert at_once(decoding, gpu, 10**6) == 1


def test_batches_of_encoded_files_travel_in_two_blocks_of_memory(jpegs):
    reader = FileReader(jpegs, Augmentation(20), True, 0, keep_jpegs=True)
    items = [reader[index, index] for index in range(len(jpegs))]
    raw = collate(items)
    names = [jpegs.image_names[index] for index in raw.indices]
    assert names == [f"train/a/{i}.jpg" for i in range(5)]
    values = [*vars(raw).values(), *raw.files]
    assert sum(isinstance(value, torch.Tensor) for value in values) == 2
    assert raw.files.pieces(1) == [(place, place + 1) for place in range(5)]
    parts = [raw.files.part(*piece) for piece in raw.files.pieces(1)]
    for part, index in zip(parts, raw.indices, strict=True):
        assert part.content.numpy().tobytes() == jpegs.path(index).read_bytes()
        assert tuple(part.sizes[0, ::-1]) == Image.open(jpegs.path(index)).size
    assert sorted([*raw.file_rows, *raw.pixel_rows]) == list(range(11))
    assert raw.pixels.shape == (6, 3, 20, 20)


@pytest.mark.parametrize("keep_jpegs", [True, False])
@pytest.mark.parametrize(
    "spoil", [lambda b: b[:-500], lambda b: b[:2] + b"\xff\xd9", lambda b: b""]
)
def test_a_broken_jpeg_is_named(jpegs, spoil, keep_jpegs):
    path = jpegs.path(2)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match=f"image {path} cannot be read") as error:
        stream(jpegs, Augmentation(20), True, keep_jpegs)
    assert "\n" not in str(error.value)


def test_a_jpeg_that_the_device_alone_refuses_is_read_by_pillow(jpegs, monkeypatch):
    augmentation = Augmentation(20, **PLAIN)
    expected = stream(jpegs, augmentation, False, True)
    path = jpegs.path(1)
    refused, original = path.read_bytes(), data.jpeg._decode
    gone = False

    def decode(files, device):
        if refused in files.content.numpy().tobytes():
            if gone:
                path.unlink(missing_ok=True)
            raise RuntimeError("not for me")
        return original(files, device)

    monkeypatch.setattr(data.jpeg, "_decode", decode)
    found = stream(jpegs, augmentation, False, True)
    torch.testing.assert_close(found, expected, atol=2, rtol=0)
    gone = True
    with pytest.raises(UserError, match=f"image {path} cannot be read"):
        stream(jpegs, augmentation, False, True)


def test_an_early_stop_in_a_thread_ends_the_workers_too(jpegs):
    reader = FileReader(jpegs, Augmentation(20), True, 0, keep_jpegs=True)
    batches = prefetch(stream_batches(reader, [np.arange(11)] * 50, CPU, num_workers=2))
    before = set(active_children())
    assert next(batches)[0].shape == (11, 3, 20, 20)
    workers = set(active_children()) - before
    assert len(workers) == 2
    batches.close()
    gc.collect()
    for worker in workers:
        worker.join(10)
    assert not workers & set(active_children()) and not prefetching()


def test_the_gpu_is_asked_for_in_vain_on_a_cpu(large):
    options = {"training": False, "seed": 0, "device": CPU}
    with pytest.raises(UserError, match="decode is 'gpu' but the device is cpu"):
        FileImages(large, "gpu").batches(batches_of(large), Augmentation(8), **options)


def test_no_batches_of_no_images(large):
    options = {"training": False, "seed": 0, "device": CPU}
    assert list(FileImages(large).batches([], Augmentation(8), **options)) == []


@needs_gpu
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_on_the_gpu_equal_those_on_the_cpu(jpegs, training, num_workers, interpolation):
    augmentation = Augmentation(24, interpolation=interpolation, **PLAIN)
    gpu = torch.device("cuda", 0)
    cpu = stream(jpegs, augmentation, training, False)
    for kept, limit in ((True, 3), (False, 0.05)):
        found = stream(jpegs, augmentation, training, kept, num_workers, gpu)
        assert found.is_cuda and (found.cpu() - cpu).abs().mean() < limit


@needs_gpu
@pytest.mark.parametrize("decode", ["auto", "cpu", "gpu"])
def test_gpu_batches_are_channels_last_and_end_with_their_thread(jpegs, decode):
    batches = [np.arange(len(jpegs))] * 20
    options = {"training": True, "seed": 0, "device": torch.device("cuda"), "num_workers": 2}
    found = FileImages(jpegs, decode).batches(batches, Augmentation(24), **options)
    images, indices = next(found)
    assert images.is_contiguous(memory_format=torch.channels_last) and indices.is_cuda
    found.close()
    gc.collect()
    assert not prefetching()
