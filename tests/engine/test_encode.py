"""Image files are coded as a run's own test codes them, whatever happens on the way."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import by_name, write_images
from PIL import Image
from small_config import make_config

import engine.encode as command
from engine.checkpoint import BEST, load_checkpoint, save_checkpoint
from engine.config import load_config
from engine.encode import main
from engine.experiment import test_only as run_test_only
from engine.experiment import train_and_test
from engine.publish import publish
from engine.run import open_run
from retrieval.codes import load_codes
from retrieval.image_codes import load_image_codes
from utils.stop_signals import Stopped

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    """A small run, its images as files, and the codes of its test by name."""
    folder = tmp_path_factory.mktemp("coded")
    config = make_config(folder / "run")
    train_and_test(config)
    write_images(open_run(config).dataset.source, folder / "images")
    return folder, by_name(load_codes(folder / "run" / "codes.npz"))


def _encode(folder, output, *options, images="images", checkpoint="run"):
    given = ["--checkpoint", str(folder / checkpoint), str(folder / images)]
    return main([*given, "-o", str(output), "--device", "cpu", *options])


@pytest.mark.parametrize("device", DEVICES)
def test_main_a_run_a_checkpoint_and_a_published_folder_give_the_digits_the_same_codes(
    device, tmp_path
):
    def config(log_dir):
        options = {"log_dir": tmp_path / log_dir, "num_epochs": 1, "device": device}
        overrides = [f"training_opt.{name}={value}" for name, value in options.items()]
        return load_config("config/Digits_LT/stage_1.py", overrides)

    train_and_test(config("run"))
    write_images(open_run(config("run")).dataset.source, tmp_path / "images", every=3)
    publish(tmp_path / "run", tmp_path / "published")
    run_test_only(config("tested"), checkpoint=str(tmp_path / "published"))
    expected = load_codes(tmp_path / "run" / "codes.npz")
    tested = load_codes(tmp_path / "tested" / "codes.npz")
    np.testing.assert_array_equal(tested.query_codes, expected.query_codes)
    np.testing.assert_array_equal(tested.database_codes, expected.database_codes)
    digests = set()
    for number, model in enumerate(("run", f"run/{BEST}", "published")):
        output = tmp_path / f"{number}.npz"
        given = ["--checkpoint", str(tmp_path / model), str(tmp_path / "images")]
        assert main([*given, "-o", str(output), "--device", device]) == 0
        found = load_image_codes(output)
        codes = by_name(expected)
        assert by_name(found) == {name: codes[name] for name in by_name(found)}
        assert len(found) == 1797 // 3
        digests.add(found.model_digest)
    assert len(digests) == 1


def _photos(root):
    """Pictures of many sizes and formats, two classes."""
    rng = np.random.default_rng(0)
    for subset, count in (("train", 12), ("test", 4)):
        for name in ("cat", "dog"):
            (root / subset / name).mkdir(parents=True)
            for number in range(count):
                size = (*rng.integers(60, 200, 2), 3)
                pixels = rng.integers(0, 255, size, dtype=np.uint8)
                path = root / subset / name / f"{number}.{('jpg', 'png', 'webp')[number % 3]}"
                Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("device", DEVICES)
def test_photographs_get_the_same_codes_from_a_real_backbone(device, tmp_path):
    _photos(tmp_path / "photos")
    options = {
        "data_root": tmp_path / "photos",
        "log_dir": tmp_path / "run",
        "image_size": 64,
        "feature_dim": 64,
        "num_epochs": 1,
        "num_workers": 1,
        "warmup_epochs": 0,
        "device": device,
    }
    overrides = [f"training_opt.{name}={value}" for name, value in options.items()]
    # A GPU's own JPEG decoder resizes a batch's images together, in another way for other batches.
    overrides += ["networks.feat_model.weights=null", "data.decode=cpu"]
    overrides += ["data.validation_per_class=2"]
    train_and_test(load_config("config/Image_Folder/stage_1.py", overrides))
    publish(tmp_path / "run", tmp_path / "published")
    expected = load_codes(tmp_path / "run" / "codes.npz")
    given = ["--checkpoint", str(tmp_path / "published"), str(tmp_path / "photos")]
    assert main([*given, "-o", str(tmp_path / "codes.npz"), "--device", device]) == 0
    found = load_image_codes(tmp_path / "codes.npz")
    assert by_name(found) == by_name(expected)
    assert len(found) == 32


def test_a_checkpoint_codes_without_the_data_it_was_trained_on(coded, tmp_path):
    folder, expected = coded
    checkpoint = load_checkpoint(folder / "run" / BEST)
    prepared = {"held_size": 8, "image_size": 8, "interpolation": "bilinear"}
    checkpoint["preprocessing"] = prepared | {"mean": [0.5] * 3, "std": [0.5] * 3}
    checkpoint["config"]["data"] |= {"def_file": "./data/image_folder.py", "params": {}}
    save_checkpoint(tmp_path / "lone.pth", checkpoint)
    assert _encode(folder, tmp_path / "c.npz", checkpoint=tmp_path / "lone.pth") == 0
    assert by_name(load_image_codes(tmp_path / "c.npz")) == expected


@pytest.mark.parametrize("stated", ["text", [], {}, {"held_size": "8"}, {"held_size": 10**9}])
def test_a_preparation_that_makes_no_sense_is_one_line(stated, coded, tmp_path, capsys):
    folder, _ = coded
    checkpoint = load_checkpoint(folder / "run" / BEST)
    save_checkpoint(tmp_path / "odd.pth", {**checkpoint, "preprocessing": stated})
    assert _encode(folder, tmp_path / "c.npz", checkpoint=tmp_path / "odd.pth") == 2
    assert "is it damaged?" in capsys.readouterr().err.splitlines()[-1]


def test_an_old_checkpoint_without_its_data_is_one_line(coded, tmp_path, capsys):
    folder, _ = coded
    checkpoint = load_checkpoint(folder / "run" / BEST)
    checkpoint.pop("preprocessing", None)
    checkpoint["config"]["data"] |= {"def_file": "./data/image_folder.py", "params": {}}
    checkpoint["config"]["training_opt"]["data_root"] = str(tmp_path / "gone")
    save_checkpoint(tmp_path / "old.pth", checkpoint)
    assert _encode(folder, tmp_path / "c.npz", checkpoint=tmp_path / "old.pth") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "old.pth" in error and "gone" in error


def test_files_and_lists_are_coded_under_the_names_they_are_given(coded, tmp_path, monkeypatch):
    folder, expected = coded
    monkeypatch.chdir(folder)
    first, second, *_ = sorted(expected)
    (tmp_path / "list.txt").write_bytes(f"\ufeffimages/{second}.png\r\n\r\n".encode())
    given = ["--checkpoint", "run", f"images/{first}.png", "--list", str(tmp_path / "list.txt")]
    assert main([*given, "-o", str(tmp_path / "c.npz")]) == 0
    found = by_name(load_image_codes(tmp_path / "c.npz"))
    assert found == {f"images/{name}": expected[name] for name in (first, second)}


@pytest.mark.parametrize("held", [8, None])
def test_broken_images_are_named_and_the_others_codes_are_what_they_were(
    held, coded, tmp_path, capsys
):
    folder, _ = coded
    source = open_run(make_config(tmp_path / "no_run")).dataset.source
    write_images(source, tmp_path / "images")
    checkpoint = load_checkpoint(folder / "run" / BEST)
    prepared = {"held_size": held, "image_size": 8, "interpolation": "bilinear"}
    checkpoint["preprocessing"] = prepared | {"mean": [0.5] * 3, "std": [0.5] * 3}
    save_checkpoint(tmp_path / "lone.pth", checkpoint)

    def encode(name):
        status = _encode(tmp_path, tmp_path / name, "--workers", "1", checkpoint="lone.pth")
        return status, by_name(load_image_codes(tmp_path / name))

    status, before = encode("before.npz")
    assert status == 0 and len(before) == len(source)
    broken = [f"{name}.png" for name in source.image_names[3:40:9]]
    for name, content in zip(broken, (b"", b"\x89PNG\r\n\x1a\n cut", b"text"), strict=False):
        (tmp_path / "images" / name).write_bytes(content)
    for name in broken[3:]:
        (tmp_path / "images" / name).unlink()
        (tmp_path / "images" / name).symlink_to("nowhere")
    capsys.readouterr()
    status, after = encode("after.npz")
    assert status == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "not coded: " in line]
    assert len(lines) == len(broken)
    assert all(sum(name in line for line in lines) == 1 for name in broken)
    left_out = {name.removesuffix(".png") for name in broken}
    assert after == {name: code for name, code in before.items() if name not in left_out}


def _interrupted(monkeypatch, after, how):
    """Let coding be interrupted once, at its (after + 1)-th part; returns the parts' sizes."""
    sizes = []
    encode_files = command.encode_files

    def interrupting(model, root, names, tick):
        sizes.append(len(names))
        if len(sizes) == after + 1:
            how()
        return encode_files(model, root, names, tick)

    monkeypatch.setattr(command, "LEAST", 1)  # parts of one batch
    monkeypatch.setattr(command, "PART_SECONDS", 0.0)
    monkeypatch.setattr(command, "encode_files", interrupting)
    return sizes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_same_command_goes_on_after_a_signal(number, coded, tmp_path, monkeypatch, capsys):
    folder, expected = coded
    sizes = _interrupted(monkeypatch, 2, lambda: os.kill(os.getpid(), number))
    output = tmp_path / "c.npz"
    assert _encode(folder, output) == 128 + number
    assert "the same command goes on" in capsys.readouterr().err
    assert not output.exists()
    assert _encode(folder, output) == 0
    kept = sum(sizes[:2])
    assert 0 < kept < len(expected) == kept + sum(sizes[3:])
    assert f"{kept} of them kept" in capsys.readouterr().out
    assert by_name(load_image_codes(output)) == expected
    assert os.listdir(tmp_path) == ["c.npz"]  # noqa: PTH208


def test_a_full_disk_is_one_line_and_what_was_coded_before_is_kept(
    coded, tmp_path, monkeypatch, capsys
):
    folder, expected = coded

    def full(*_):
        raise OSError(28, "No space left on device")

    sizes = _interrupted(
        monkeypatch, 1, lambda: monkeypatch.setattr("engine.codes_file.save_image_codes", full)
    )
    with monkeypatch.context():
        assert _encode(folder, tmp_path / "c.npz") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "c.npz" in line and "No space left" in line
    monkeypatch.undo()
    assert _encode(folder, tmp_path / "c.npz") == 0
    assert f"{sizes[0]} of them kept" in capsys.readouterr().out
    assert by_name(load_image_codes(tmp_path / "c.npz")) == expected


def test_parts_of_another_model_or_batch_size_are_refused(coded, tmp_path, monkeypatch, capsys):
    folder, _ = coded

    def stop():
        raise Stopped(signal.SIGTERM)

    _interrupted(monkeypatch, 1, stop)
    output = tmp_path / "c.npz"
    assert _encode(folder, output) == 143
    assert _encode(folder, output, "--batch_size", "3") == 2
    assert "another batch_size (32, now 3)" in capsys.readouterr().err
    checkpoint = load_checkpoint(folder / "run" / BEST)
    next(iter(checkpoint["state_dict_best"]["hash_head"].values())).add_(1e-3)
    save_checkpoint(tmp_path / "other.pth", checkpoint)
    assert _encode(folder, output, checkpoint=tmp_path / "other.pth") == 2
    assert "another model" in capsys.readouterr().err
    assert _encode(folder, output) == 0


def test_a_second_time_only_new_and_changed_files_are_coded(coded, tmp_path, capsys):
    folder, _ = coded
    source = open_run(make_config(tmp_path / "no_run")).dataset.source
    write_images(source, tmp_path / "images")
    output, images = tmp_path / "c.npz", tmp_path / "images"
    options = {"checkpoint": folder / "run"}
    assert _encode(tmp_path, output, **options) == 0
    first, second, third, *_ = (images / f"{name}.png" for name in source.image_names)
    first.unlink()
    os.utime(second, ns=(0, 0))
    third.write_bytes((images / f"{source.image_names[-1]}.png").read_bytes())
    Image.open(third).save(images / "new.png")
    capsys.readouterr()
    assert _encode(tmp_path, output, **options) == 0
    assert f"{len(source) - 3} of them kept" in capsys.readouterr().out
    found = by_name(load_image_codes(output))
    assert len(found) == len(source)
    assert source.image_names[0] not in found
    assert found["new"] == found[source.image_names[2]] == found[source.image_names[-1]]


def test_weights_without_a_config_need_one(coded, tmp_path, capsys):
    folder, expected = coded
    networks = load_checkpoint(folder / "run" / BEST)["state_dict_best"]
    plain = {f"{name}.{key}": t for name, state in networks.items() for key, t in state.items()}
    torch.save(plain, tmp_path / "bare.pth")
    output = tmp_path / "c.npz"
    assert _encode(folder, output, checkpoint=tmp_path / "bare.pth") == 2
    assert "--config" in capsys.readouterr().err
    given = ["--config", str(folder / "run" / "config.yaml")]
    assert _encode(folder, output, *given, checkpoint=tmp_path / "bare.pth") == 2
    assert "num_classes" in capsys.readouterr().err
    given += ["--opts", "training_opt.num_classes=5"]
    assert _encode(folder, output, *given, checkpoint=tmp_path / "bare.pth") == 0
    assert by_name(load_image_codes(output)) == expected

    output.unlink()  # and the data is not at hand
    given += [f"training_opt.data_root={tmp_path / 'gone'}", "data.def_file=./data/image_folder.py"]
    given += ["data.params={}"]
    assert _encode(folder, output, *given, checkpoint=tmp_path / "bare.pth") == 2
    assert "--opts data.cache_size=PIXELS" in capsys.readouterr().err
    given += ["data.cache_size=8"]
    assert _encode(folder, output, *given, checkpoint=tmp_path / "bare.pth") == 0
    assert by_name(load_image_codes(output)) == expected


def test_code_that_a_checkpoints_config_names_is_not_run(coded, tmp_path, capsys):
    folder, _ = coded
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    checkpoint = load_checkpoint(folder / "run" / BEST)
    checkpoint.pop("preprocessing", None)  # so that the data is asked
    parts = (checkpoint["config"]["networks"]["feat_model"], checkpoint["config"]["data"])
    for part in (*parts, checkpoint["config"]["criterions"]["classification"]):
        before = dict(part)
        part["def_file"] = str(tmp_path / "evil.py")
        save_checkpoint(tmp_path / "evil.pth", checkpoint)
        _encode(folder, tmp_path / "c.npz", checkpoint=tmp_path / "evil.pth")
        part |= before
    assert capsys.readouterr().err.count("evil.py, which is none of the project's") == 2
    assert not (tmp_path / "ran").exists()


def test_a_run_of_several_code_lengths_asks_which(tmp_path, capsys):
    heads = {"hash_head": {"def_file": str(Path(__file__).with_name("several_heads.py"))}}
    config = make_config(tmp_path / "run", code_length=[4, 8], num_epochs=1, networks=heads)
    train_and_test(config)
    write_images(open_run(config).dataset.source, tmp_path / "images")
    given = ["--config", str(tmp_path / "run" / "config.yaml")]  # heads that are not the project's
    assert _encode(tmp_path, tmp_path / "c.npz", *given) == 2
    assert "4, 8 bits" in capsys.readouterr().err
    for length in (4, 8):
        output = tmp_path / f"{length}.npz"
        assert _encode(tmp_path, output, *given, "--code_length", str(length)) == 0
        expected = load_codes(tmp_path / "run" / f"{length}bits" / "codes.npz")
        assert by_name(load_image_codes(output)) == by_name(expected)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--checkpoint", "none", "README.md", "-o", "c.npz"], "none"),
        (["--checkpoint", "none", "nothing", "-o", "c.npz"], "nothing: no such file or folder"),
        (["--checkpoint", "none", "tests/loss", "-o", "c.npz"], "tests/loss: no image file there"),
        (["--checkpoint", "none", "README.md", "-o", "c.csv"], "ends in .npz"),
        (["--checkpoint", "models", "README.md", "-o", "c.npz"], "models is no published model"),
        (["--checkpoint", "none", "no\nthing", "-o", "c.npz"], "no\\nthing"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(arguments, said, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error


@pytest.mark.parametrize(
    ("option", "said"),
    [("--batch_size=0", "a whole number from 1 up"), ("--workers=x", "a whole number from 0 up")],
)
def test_a_number_out_of_range_is_said_in_plain_words(option, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--checkpoint", "none", "README.md", "-o", "c.npz", option])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_each_image_that_is_not_coded_is_one_line(coded, tmp_path, capsys):
    folder, _ = coded
    images = tmp_path / "images"
    images.mkdir()
    (images / "two\nlines.png").symlink_to("nowhere")
    (images / "broken\nimage.png").write_bytes(b"broken")
    (images / os.fsdecode(b"latin\xe9.png")).write_bytes(b"")
    given = [str(path) for path in sorted(images.iterdir())]
    for each in ([str(images)], given):
        arguments = ["--checkpoint", str(folder / "run"), *each, "--device", "cpu"]
        assert main([*arguments, "-o", str(tmp_path / "c.npz")]) == 1
        error = capsys.readouterr().err
        lines = [line for line in error.splitlines() if line.startswith("not coded: image '/")]
        assert len(lines) == 3 == error.count("not coded")


def test_no_readable_image_leaves_no_file(coded, tmp_path, capsys):
    folder, _ = coded
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(b"broken")
    assert _encode(tmp_path, tmp_path / "c.npz", checkpoint=folder / "run") == 1
    found = capsys.readouterr()
    assert "not written" in found.out and "1.png" in found.err
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_help_shows_examples_and_exit_status(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("examples:", "--list", "--code_length", "Exit status"))


def test_in_bf16_nearly_all_bits_are_those_of_float32(coded, tmp_path):
    folder, _ = coded
    assert _encode(folder, tmp_path / "fp32.npz", "--precision", "fp32") == 0
    assert _encode(folder, tmp_path / "bf16.npz", "--precision", "bf16") == 0
    codes = [load_image_codes(tmp_path / f"{name}.npz") for name in ("fp32", "bf16")]
    assert [each.made_with["bf16"] for each in codes] == [False, True]
    assert np.unpackbits(codes[0].codes ^ codes[1].codes).mean() < 0.05
