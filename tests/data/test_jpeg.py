from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

import data.jpeg
from data.jpeg import MIN_SIDE, decode_jpegs, decoder_error, read_plain_jpeg
from data.jpeg_files import MAX_SIDE, join_jpegs
from utils.errors import UserError

CPU = torch.device("cpu")


def wave(size=(70, 50), mode="RGB"):
    y, x = np.mgrid[: size[1], : size[0]]
    channels = [128 + 90 * np.sin(x / 9 + c) * np.cos(y / (11 + c)) for c in range(3)]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8)).convert(mode)


def encoded(image, **options):
    stream = BytesIO()
    image.save(stream, "JPEG", quality=95, **options)
    return stream.getvalue()


def turned(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


def renumbered(content, numbers):
    """Give the components of a JPEG file other numbers, in the frame's header and the scan's."""
    content = bytearray(content)
    frame, scan = content.index(b"\xff\xc0") + 10, content.index(b"\xff\xda") + 5
    for place, number in enumerate(numbers):
        content[frame + 3 * place] = content[scan + 2 * place] = number
    return bytes(content)


def adobe(content, transform):
    """Add Adobe's marker, which says what the components are."""
    marker = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
    return content[:2] + marker + content[2:]


def files_of(*images, **options):
    return join_jpegs([encoded(image, **options) for image in images], [i.size for i in images])


@pytest.mark.parametrize(
    ("content", "plain"),
    [
        (encoded(wave()), True),
        (encoded(wave(mode="L")), False),
        (encoded(wave(), exif=turned(1)), True),
        (encoded(wave(), exif=b"Exif\0\0nonsense"), True),
        (encoded(wave((MAX_SIDE, MIN_SIDE))), True),
        (encoded(wave((MAX_SIDE, MIN_SIDE - 1))), False),
        (encoded(wave((MIN_SIDE, MAX_SIDE + 1))), False),
        (encoded(wave(), exif=turned(6)), False),
        (encoded(wave(mode="CMYK")), False),
        (encoded(wave(), progressive=True), False),
        (encoded(wave(), keep_rgb=True), False),
        (renumbered(encoded(wave()), b"RGB"), False),
        (renumbered(encoded(wave()), bytes([0, 1, 2])), False),
        (adobe(encoded(wave()), 1), True),
        (adobe(encoded(wave()), 0), False),
        (adobe(encoded(wave()), 2), False),
        (encoded(wave((1, 1))), False),
        (encoded(wave())[:-2], False),
        (encoded(wave()) + b"tail", False),
        (encoded(wave(), subsampling=0).replace(b"\x01\x11\x00", b"\x01\x41\x00", 1), False),
        (b"", False),
        (b"BM no picture", False),
    ],
)
def test_plain_files_come_as_they_are_and_others_not_at_all(tmp_path, content, plain):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    found = read_plain_jpeg(path)
    assert (found is not None) == plain
    if found:
        assert found[0] == content and found[1] == Image.open(path).size


def test_absent_files_and_other_formats_are_not_plain(tmp_path):
    wave().save(tmp_path / "x.png")
    wave().save(tmp_path / "named_wrongly.jpg", "PNG")
    for name in ("absent.jpg", "x.png", "named_wrongly.jpg"):
        assert read_plain_jpeg(tmp_path / name) is None


def test_the_cpu_decodes_like_pillow():
    assert decoder_error(CPU) is None
    images = [wave(), wave((33, 20), "L")]
    found = decode_jpegs(files_of(*images), CPU, fallback=lambda i: 1 / 0).split()
    for own, image in zip(found, images, strict=True):
        expected = np.asarray(Image.open(BytesIO(encoded(image))).convert("RGB"), dtype=np.int16)
        assert np.abs(own.permute(1, 2, 0).numpy() - expected).max() <= 2


def test_what_cannot_be_decoded_is_asked_of_the_fallback_alone():
    asked = []

    def fallback(position):
        asked.append(position)
        return wave((4, 6))

    contents = [encoded(wave()), b"nonsense", encoded(wave())]
    found = decode_jpegs(join_jpegs(contents, [(70, 50), (4, 6), (70, 50)]), CPU, fallback).split()
    assert asked == [1] and [tuple(image.shape) for image in found] == [
        (3, 50, 70),
        (3, 6, 4),
        (3, 50, 70),
    ]
    assert np.array_equal(found[1].permute(1, 2, 0), np.asarray(wave((4, 6))))


def test_one_refused_file_of_many_does_not_take_the_others_apart(monkeypatch):
    calls, original = [], data.jpeg._decode
    monkeypatch.setattr(data.jpeg, "_decode", lambda *given: calls.append(1) or original(*given))
    contents = [encoded(wave((17, 16)))] * 255
    contents.insert(77, b"nonsense")
    files = join_jpegs(contents, [(17, 16)] * 256)
    found = decode_jpegs(files, CPU, lambda i: {77: wave((17, 16))}[i]).split()
    assert len(calls) <= 2 + 2 * 8
    assert np.array_equal(found[77].permute(1, 2, 0), np.asarray(wave((17, 16))))
    others = torch.stack(found[:77] + found[78:])
    assert torch.equal(others, others[:1].expand_as(others))


def test_memory_that_runs_out_is_not_taken_for_a_broken_file(monkeypatch):
    def fail(files, device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(data.jpeg, "_decode", fail)
    with pytest.raises(torch.OutOfMemoryError):
        decode_jpegs(files_of(wave(), wave()), CPU, lambda i: 1 / 0)


def test_an_image_of_another_size_than_its_header_gave_is_never_used():
    files = join_jpegs([encoded(wave())], [(70, 51)])
    found = decode_jpegs(files, CPU, lambda i: wave((70, 51))).split()
    assert np.array_equal(found[0].permute(1, 2, 0), np.asarray(wave((70, 51))))
    with pytest.raises(UserError, match="an image of 70 x 51 pixels has 70 x 50"):
        decode_jpegs(files, CPU, lambda i: wave((70, 50)))


def test_a_torchvision_without_decoders_is_found_out(monkeypatch, caplog):
    def fail(files, device):
        raise RuntimeError("not compiled\nwith nvJPEG")

    monkeypatch.setattr(data.jpeg, "_decode", fail)
    decoder_error.cache_clear()
    assert [decoder_error(CPU), decoder_error(CPU)] == ["not compiled with nvJPEG"] * 2
    assert len(caplog.records) == 1
    decoder_error.cache_clear()


def test_files_that_the_engines_refuse_are_decoded_otherwise(monkeypatch):
    class Engines:
        def decode(self, files):
            raise RuntimeError("nvjpegDecodeBatched failed with status 3")

    files = files_of(wave())
    monkeypatch.setattr(data.jpeg, "jpeg_engines", lambda device: Engines())
    (found,) = decode_jpegs(files, CPU, lambda i: 1 / 0).split()
    monkeypatch.undo()
    assert torch.equal(found, decode_jpegs(files, CPU, lambda i: 1 / 0).split()[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_decodes_like_pillow():
    gpu = torch.device("cuda", 0)
    assert decoder_error(gpu) is None
    images = [wave((size, 300 - size)) for size in range(40, 240, 7)]
    contents = [encoded(image, subsampling=i % 3) for i, image in enumerate(images)]
    files = join_jpegs(contents, [image.size for image in images])
    found = decode_jpegs(files, gpu, lambda i: 1 / 0).split()
    for own, content in zip(found, contents, strict=True):
        expected = np.asarray(Image.open(BytesIO(content)).convert("RGB"), dtype=np.int16)
        difference = own.cpu().permute(1, 2, 0).numpy() - expected
        assert own.is_cuda and np.abs(difference).mean() < 3
