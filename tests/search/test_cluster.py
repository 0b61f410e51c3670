"""`python -m search.cluster` with its workers in this process: sources, parts and outputs."""

import builtins
import os
import shutil
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from digit_files import train_model, write_digits

import search.cluster as command
from engine.encode import main as encode_command
from retrieval.image_codes import load_image_codes
from search.cluster_output import MANIFEST, open_output, packed_codes
from search.cluster_worker import BlockCoder
from search.index import main as index_command
from search.index import open_index
from utils.stop_signals import Stopped


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return train_model(tmp_path_factory.mktemp("run") / "stage_1")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, model):
    """Digits as files, and their codes as engine.encode gives them."""
    folder = tmp_path_factory.mktemp("pictures")
    write_digits(folder / "images", range(150))
    given = ["--checkpoint", str(model), str(folder / "images"), "-o", str(folder / "codes.npz")]
    assert encode_command([*given, "--device", "cpu"]) == 0
    codes = load_image_codes(folder / "codes.npz")
    return folder / "images", dict(zip(codes.names.tolist(), map(bytes, codes.codes), strict=True))


@pytest.fixture
def coded(monkeypatch):
    """Let blocks be coded here; the paths of all images that are, in turn."""
    paths = []

    def code_blocks(job, blocks, workers):
        coder = BlockCoder(job)
        for part, block in blocks:
            done = coder.code(part, block)
            assert not done.mistake, done.mistake
            paths.extend(block["path"].to_pylist())
            yield done

    @contextmanager
    def cluster(address):
        yield

    def choose_workers(device, replicas):
        options = {"device": "cpu", "num_workers": 0}
        return SimpleNamespace(count=1, device="cpu", options=options)

    stand_in = SimpleNamespace(
        cluster=cluster, choose_workers=choose_workers, code_blocks=code_blocks
    )
    monkeypatch.setattr(command, "_ray", lambda: stand_in)
    return paths


def run(model, images, output, *options):
    return command.main([str(images), "--checkpoint", str(model), "-o", str(output), *options])


def found(output):
    """The output's rows, each of which is there once: path -> row."""
    rows = {}
    for table in open_output(str(output)).tables():
        for row in table.to_pylist():
            assert row["path"] not in rows
            rows[row["path"]] = row
    return rows


def codes_of(output):
    return {path: row["code"] for path, row in found(output).items()}


def as_table(folder):
    """The pictures of a folder as a table of their files' bytes."""
    paths = sorted(path for path in folder.rglob("*.png"))
    return pa.table({
        "name": [path.relative_to(folder).as_posix() for path in paths],
        "image": [path.read_bytes() for path in paths],
        "label": [int(path.parent.name) for path in paths],
    })  # fmt: skip


def write_lance(place, table):
    lancedb = pytest.importorskip("lancedb")
    return lancedb.connect(place.parent).create_table(place.stem, data=table)


@pytest.mark.parametrize("name", ["codes", "codes.lance"])
def test_files_have_the_codes_of_engine_encode_and_rows(name, model, pictures, coded, tmp_path):
    if name.endswith(".lance"):
        pytest.importorskip("lancedb")
    output = tmp_path / name
    assert run(model, pictures[0], output, "--block", "64") == 0
    assert codes_of(output) == pictures[1]
    for path, row in found(output).items():
        stat = (pictures[0] / path).stat()
        assert (row["size"], row["stamp"]) == (stat.st_size, stat.st_mtime_ns)
        shown = (row["split"], row["label"], row["width"], row["height"])
        assert shown == ("train", path.split("/")[1], 8, 8)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("kind", ["parquet", "groups", "struct", "lance", "objects", "paths"])
def test_images_in_tables_have_the_codes_that_their_files_have(
    kind, model, pictures, coded, tmp_path
):
    folder, expected = pictures
    table, options = as_table(folder), []
    place = tmp_path / "images.parquet"
    if kind == "lance":
        place = tmp_path / "images.lance"
        write_lance(place, table)
    elif kind == "objects":
        place = f"file://{folder}"
    else:
        if kind == "struct":
            both = pa.StructArray.from_arrays([table["image"].combine_chunks()], ["bytes"])
            table = table.set_column(1, "image", both)
        if kind == "paths":
            table, options = (
                table.drop(["image"]).rename_columns(["path", "label"]),
                ["--image_root"],
            )
            options.append(str(folder))
        pq.write_table(table, place, row_group_size=40 if kind == "groups" else None)
    assert run(model, place, tmp_path / "codes", *options, "--block", "64") == 0
    assert codes_of(tmp_path / "codes") == expected
    for path, row in found(tmp_path / "codes").items():
        assert (row["label"], row["width"]) == (path.split("/")[1], 8)
        assert row["split"] == "train"


@pytest.mark.parametrize("name", ["codes", "codes.lance"])
def test_again_only_new_and_changed_files_are_coded(name, model, pictures, coded, tmp_path):
    if name.endswith(".lance"):
        pytest.importorskip("lancedb")
    folder, output = tmp_path / "it's", tmp_path / name
    shutil.copytree(pictures[0], folder)
    assert run(model, folder, output) == 0
    before, (first, second, third, *_) = found(output), sorted(pictures[1])
    coded.clear()
    assert run(model, folder, output) == 0
    assert coded == []
    (folder / first).unlink()
    shutil.copy(folder / third, folder / second)
    os.utime(folder / third, ns=(0, 0))
    write_digits(folder, range(150, 153))
    assert run(model, folder, output) == 0
    assert len(coded) == 5 and {second, third} < set(coded)
    after = found(output)
    assert first not in after and len(after) == len(before) + 2
    assert after[second]["code"] == after[third]["code"] == before[third]["code"]
    assert all(after[path] == before[path] for path in before if path not in (first, *coded))


def test_again_only_new_and_changed_rows_are_coded(model, pictures, coded, tmp_path):
    table, folder = as_table(pictures[0]), tmp_path / "tables"
    folder.mkdir()
    for number in range(2):
        pq.write_table(table.slice(50 * number, 50), folder / f"{number}.parquet")
    assert run(model, folder, tmp_path / "codes") == 0
    coded.clear()
    pq.write_table(table.slice(100), folder / "2.parquet")
    os.utime(folder / "1.parquet", ns=(0, 0))
    assert run(model, folder, tmp_path / "codes") == 0
    assert sorted(coded) == sorted(table["name"].to_pylist()[50:])
    assert codes_of(tmp_path / "codes") == pictures[1]


def test_again_only_new_and_changed_rows_of_lance_are_coded(model, pictures, coded, tmp_path):
    table = as_table(pictures[0])
    place, output = tmp_path / "images.lance", tmp_path / "codes.lance"
    lance = write_lance(place, table.slice(0, 100))
    assert run(model, place, output) == 0
    coded.clear()
    lance.add(table.slice(100))
    names, images = table["name"].to_pylist(), table["image"].to_pylist()
    lance.update(where=f"name = '{names[0]}'", values={"image": images[1]})
    lance.delete(f"name = '{names[2]}'")
    assert run(model, place, output) == 0
    assert sorted(coded) == sorted([names[0], *names[100:]])
    expected = {**pictures[1], names[0]: pictures[1][names[1]]}
    del expected[names[2]]
    assert codes_of(output) == expected


def test_interrupted_it_goes_on_from_the_parts(model, pictures, coded, tmp_path, monkeypatch):
    output = tmp_path / "codes"
    with monkeypatch.context() as patch:
        follow = command._follow

        def stop(done, *others):
            next(done), next(done)
            raise Stopped(15)

        patch.setattr(command, "_follow", stop)
        assert run(model, pictures[0], output, "--block", "32") == 143
        assert not output.exists() and len(coded) == 64
        assert follow is not stop
    assert run(model, pictures[0], output, "--block", "64") == 0
    assert sorted(coded) == sorted(pictures[1])
    assert codes_of(output) == pictures[1]


def test_a_part_that_a_lost_worker_left_or_wrote_twice_counts_once(
    model, pictures, coded, tmp_path, monkeypatch
):
    """Parts of other blocks hold the same images when two jobs were at one output."""
    output, parts = tmp_path / "codes", tmp_path / "codes.parts"
    kept = tmp_path / "kept"
    for block in ("32", "64"):
        with monkeypatch.context() as patch:
            patch.setattr(command, "_follow", lambda done, *_: list(done) and 1 / 0)
            with pytest.raises(ZeroDivisionError):
                run(model, pictures[0], output, "--block", block)
        shutil.copytree(parts, kept, dirs_exist_ok=True)
        shutil.rmtree(parts)
    shutil.copytree(kept, parts)
    assert len(list(parts.glob("*.parquet"))) == 5 + 3 - 1  # the last ones are the same
    (parts / ".tmp-left.parquet").write_bytes(b"half a pa")
    coded.clear()
    assert run(model, pictures[0], output) == 0
    assert not coded and codes_of(output) == pictures[1]


def test_killed_before_or_after_the_manifest_an_update_leaves_each_image_once(
    model, pictures, coded, tmp_path, monkeypatch
):
    folder, output = tmp_path / "images", tmp_path / "codes"
    shutil.copytree(pictures[0], folder)
    assert run(model, folder, output) == 0
    os.utime(folder / min(pictures[1]), ns=(0, 0))
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr("search.cluster_output.ParquetCodes.sweep", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):  # after the manifest was replaced
            run(model, folder, output)
    assert codes_of(output) == pictures[1]
    (output / MANIFEST).write_bytes(before[MANIFEST])  # as if killed just before
    assert codes_of(output) == pictures[1]
    for _ in range(2):
        assert run(model, folder, output) == 0
        assert codes_of(output) == pictures[1]
        assert len(pq.read_table(output)) == len(pictures[1])
        (output / "codes-000009-000000.parquet").write_bytes(next(iter(before.values())))


def test_images_that_cannot_be_read_are_named(model, pictures, coded, tmp_path, capsys):
    table = as_table(pictures[0])
    images = table["image"].to_pylist()
    images[3], images[70] = b"no image", None
    table = table.set_column(1, "image", pa.array(images))
    pq.write_table(table, tmp_path / "images.parquet")
    names = [table["name"][row].as_py() for row in (3, 70)]
    assert run(model, tmp_path / "images.parquet", tmp_path / "codes", "--block", "64") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "not coded" in line]
    assert len(lines) == 2 and all(name in line for name, line in zip(names, lines, strict=True))
    expected = {name: code for name, code in pictures[1].items() if name not in names}
    assert codes_of(tmp_path / "codes") == expected
    coded.clear()
    assert run(model, tmp_path / "images.parquet", tmp_path / "codes") == 1
    assert sorted(coded) == sorted(names)


@pytest.mark.parametrize("name", ["codes", "codes.lance"])
def test_an_index_takes_the_output_like_any_source(name, model, pictures, coded, tmp_path, capsys):
    if name.endswith(".lance"):
        pytest.importorskip("lancedb")
    pytest.importorskip("faiss")
    output, place = str(tmp_path / name), str(tmp_path / "index")
    assert run(model, pictures[0], output) == 0
    assert index_command(["build", output, "-o", place]) == 0
    index = open_index(place)
    ids = index.select()
    paths = index.rows(ids)["path"].to_pylist()
    assert dict(zip(paths, map(bytes, index.codes(ids)), strict=True)) == pictures[1]
    coding = index.coding
    assert (coding.checkpoint, coding.image_root) == (str(model), str(pictures[0]))
    direct = ["build", str(pictures[0]), "--checkpoint", str(model), "-o", str(tmp_path / "other")]
    assert index_command(direct) == 0
    other = open_index(tmp_path / "other")
    assert other.coding == coding
    rows, same = (each.rows(each.select()).drop(["id"]).sort_by("path") for each in (index, other))
    assert rows.equals(same)
    assert index_command(["add", place, output]) == 0
    assert len(open_index(place)) == len(ids)


def test_what_another_model_or_place_made_is_refused(model, pictures, coded, tmp_path, capsys):
    output = tmp_path / "codes"
    assert run(model, pictures[0], output) == 0
    assert run(model, pictures[0], output, "--batch_size", "8") == 2
    assert "another batch_size (32, now 8)" in capsys.readouterr().err
    shutil.copytree(pictures[0], tmp_path / "moved")
    assert run(model, tmp_path / "moved", output) == 2
    assert "another source" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    assert run(model, pictures[0], tmp_path / "other") == 2
    assert "holds no codes of images" in capsys.readouterr().err
    assert os.listdir(tmp_path / "other") == ["letter.txt"]  # noqa: PTH208


def tables_of_mistakes(folder):
    """Name -> what is wrong with a Parquet file of images."""
    tables = {
        "no column of encoded images": {"number": [1]},
        "is there 2 times": {"image": [b"1", b"2"], "id": ["a", "a"]},
        "without a path or id": {"image": [b"1"], "id": pa.array([None], pa.string())},
        "no image there": {"image": pa.array([], pa.binary())},
    }
    for number, (said, columns) in enumerate(tables.items()):
        pq.write_table(pa.table(columns), folder / f"{number}.parquet")
        yield folder / f"{number}.parquet", said, []
    yield folder / "1.parquet", "has no column 'x'", ["--id_column", "x"]
    (folder / "broken.parquet").write_text("nothing")
    yield folder / "broken.parquet", "cannot be read", []
    broken = pa.table({"image": [b"1"], "id": ["a"], "label": [{"x": 1}]})
    pq.write_table(broken, folder / "label.parquet")
    yield folder / "label.parquet", "label.parquet cannot be read", []
    yield folder / "none.parquet", "no such file", []
    yield folder / "none", "no such file or folder", []
    yield folder / "none.lance", "cannot be read", []
    yield "nowhere://images", "nowhere", []


def test_mistakes_are_one_line(model, coded, tmp_path, capsys):
    for place, said, options in tables_of_mistakes(tmp_path):
        assert run(model, place, tmp_path / "codes", *options) == 2
        *_, line = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("error: ") and said in line, line
        assert not (tmp_path / "codes").exists()


def test_without_ray_the_error_names_what_to_install(
    model, pictures, tmp_path, capsys, monkeypatch
):
    imported = builtins.__import__

    def missing(name, *others):
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")
        return imported(name, *others)

    monkeypatch.delitem(__import__("sys").modules, "search.cluster_ray", raising=False)
    monkeypatch.delattr("search.cluster_ray", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    assert run(model, pictures[0], tmp_path / "codes") == 2
    error = capsys.readouterr().err
    assert "requirements-cluster.txt" in error and error.count("\n") == 1


def test_a_block_over_which_workers_die_again_and_again_ends_the_job(
    model, pictures, coded, tmp_path, capsys, monkeypatch
):
    def die(*_):
        raise SystemExit(9)

    seen = []

    def code_blocks(job, blocks, workers):
        (part, block), *_ = blocks
        for _ in range(20):
            with monkeypatch.context() as patch:
                patch.setattr("search.coder.Coder.code", die)
                try:
                    done = BlockCoder(job).code(part, block)
                except SystemExit:
                    seen.append(part)
                    continue
            raise command.UserError(done.mistake)

    monkeypatch.setattr(command._ray(), "code_blocks", code_blocks)
    assert run(model, pictures[0], tmp_path / "codes") == 2
    assert len(seen) == 6
    error = capsys.readouterr().err
    assert "workers died 6 times" in error and min(pictures[1]) in error


def test_a_worker_without_the_jobs_model_or_folder_says_so(
    model, pictures, coded, tmp_path, monkeypatch, capsys
):
    """The first machine of a cluster may see what others do not."""
    code_blocks = command._ray().code_blocks
    hidden, hides = tmp_path / "hidden", []

    def elsewhere(job, blocks, workers):
        place = {"model": model, "images": pictures[0]}[hides[-1]]
        place.rename(hidden)
        try:
            raise command.UserError(BlockCoder(job).code(*next(blocks)).mistake)
        finally:
            hidden.rename(place)

    monkeypatch.setattr(command._ray(), "code_blocks", elsewhere)
    for name, said in (("model", str(model)), ("images", "every machine of the cluster")):
        hides.append(name)
        assert run(model, pictures[0], tmp_path / "codes") == 2
        *_, line = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("error: ") and said in line and os.uname().nodename in line

    def unshared(job, blocks, workers):
        for done in code_blocks(job, blocks, workers):
            (tmp_path / "codes.parts" / done.part).unlink()
            yield done

    monkeypatch.setattr(command._ray(), "code_blocks", unshared)
    monkeypatch.setattr(command, "SHARED_SECONDS", 0.0)
    assert run(model, pictures[0], tmp_path / "codes") == 2
    assert "where all machines write to" in capsys.readouterr().err


def test_the_codes_of_a_table_come_from_any_slice(rng):
    codes = rng.integers(0, 256, (10, 4), np.uint8)
    table = pa.table({"code": pa.array([bytes(code) for code in codes], pa.binary(4))})
    assert (packed_codes(table.slice(3, 5)) == codes[3:8]).all()
    both = pa.concat_tables([table.slice(8), table.slice(0, 2)])
    assert (packed_codes(both) == codes[[8, 9, 0, 1]]).all()
    assert packed_codes(table.slice(0, 0)).shape == (0, 4)
