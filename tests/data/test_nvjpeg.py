from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

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
    return torch.frombuffer(bytearray(stream.getvalue()), dtype=torch.uint8)


def test_the_cpu_has_no_engines():
    assert jpeg_engines(torch.device("cpu")) is None


@needs_engines
@pytest.mark.parametrize("count", [1, 5, 40])
def test_pixels_are_those_of_torchvision(count):
    device = torch.device("cuda", 0)
    files = [make_file(seed, seed % 3) for seed in range(count)]
    expected = decode_jpeg(files, mode=ImageReadMode.RGB, device=device)
    found = jpeg_engines(device).decode(files)
    assert len(found) == count
    for own, reference in zip(found, expected, strict=True):
        assert torch.equal(own, reference)


@needs_engines
def test_a_broken_file_is_refused_and_the_next_batch_is_well():
    device = torch.device("cuda", 0)
    files = [make_file(seed, 2) for seed in range(4)]
    broken = [files[0], torch.zeros(100, dtype=torch.uint8), files[1]]
    with pytest.raises(RuntimeError, match="status"):
        jpeg_engines(device).decode(broken)
    expected = decode_jpeg(files, mode=ImageReadMode.RGB, device=device)
    for own, reference in zip(jpeg_engines(device).decode(files), expected, strict=True):
        assert torch.equal(own, reference)
