from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from data.jpeg_files import join_jpegs
from data.nvjpeg import jpeg_engines

needs_engines = pytest.mark.skipif(
    not torch.cuda.is_available() or jpeg_engines(torch.device("cuda", 0)) is None,
    reason="needs a GPU with JPEG engines",
)


def make_file(seed, subsampling):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(17, 300, 2)
    pixels = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    stream = BytesIO()
    image = Image.fromarray(pixels).resize((int(width), int(height)))
    image.save(stream, "JPEG", quality=85, subsampling=subsampling)
    return stream.getvalue(), image.size


def joined(files):
    return join_jpegs(*zip(*files, strict=True))


def decoded_by_torchvision(files, device):
    parts = [torch.frombuffer(bytearray(content), dtype=torch.uint8) for content, _ in files]
    return decode_jpeg(parts, mode=ImageReadMode.RGB, device=device)


def test_the_cpu_has_no_engines():
    assert jpeg_engines(torch.device("cpu")) is None


@needs_engines
@pytest.mark.parametrize("count", [1, 5, 40])
def test_pixels_are_those_of_torchvision(count):
    device = torch.device("cuda", 0)
    files = [make_file(seed, seed % 3) for seed in range(count)]
    found = jpeg_engines(device).decode(joined(files)).split()
    for own, reference in zip(found, decoded_by_torchvision(files, device), strict=True):
        assert torch.equal(own, reference)


@needs_engines
@pytest.mark.parametrize("spoil", [lambda c, s: (bytes(100), s), lambda c, s: (c, (s[0], 9))])
def test_a_broken_file_or_size_is_refused_and_the_next_batch_is_well(spoil):
    device = torch.device("cuda", 0)
    files = [make_file(seed, 2) for seed in range(4)]
    with pytest.raises(RuntimeError, match=r"status|other sizes"):
        jpeg_engines(device).decode(joined([files[0], spoil(*files[2]), files[1]]))
    found = jpeg_engines(device).decode(joined(files)).split()
    for own, reference in zip(found, decoded_by_torchvision(files, device), strict=True):
        assert torch.equal(own, reference)
