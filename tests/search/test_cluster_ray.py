"""`python -m search.cluster` on a real cluster: two workers on this machine, one of them killed."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from digit_files import train_model, write_digits
from PIL import Image

from engine.encode import main as encode_command
from retrieval.image_codes import load_image_codes
from search.cluster import main as cluster_command
from search.cluster_output import open_output

pytest.importorskip("ray", reason="needs Ray: pip install -r requirements-cluster.txt")

COUNT, BLOCK, SLOW = 768, 32, 1500  # images, of a block, and pixels a side of one in each block


@pytest.fixture(scope="module")
def cluster():
    from search import cluster_ray

    with cluster_ray.cluster(cluster_ray.LOCAL, 2):
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return train_model(tmp_path_factory.mktemp("run") / "stage_1")


@pytest.fixture(scope="module")
def images(tmp_path_factory, model):
    """Digits, with large pictures among them so that blocks take a while, and their codes."""
    folder = tmp_path_factory.mktemp("images")
    write_digits(folder, range(COUNT))
    slope = np.linspace(0, 255, SLOW * SLOW * 3).astype(np.uint8).reshape(SLOW, SLOW, 3)
    for path in sorted(folder.rglob("*.png"))[::BLOCK]:
        Image.fromarray(slope).save(path, compress_level=1)
    return folder, encoded(model, folder, folder.parent / "codes.npz")


def encoded(model, folder, output):
    """Path -> code, as engine.encode has it."""
    given = ["--checkpoint", str(model), str(folder), "-o", str(output), "--device", "cpu"]
    assert encode_command(given) == 0
    codes = load_image_codes(output)
    return dict(zip(codes.names.tolist(), map(bytes, codes.codes), strict=True))


def kill_one(parts, killed, stopped):
    """Kill the first worker that is seen in the middle of a block."""
    while not stopped.is_set() and not killed:
        for mark in (parts / "tries").glob("*.0"):
            part = parts / mark.name.removesuffix(".0")
            text = mark.read_text()
            if part.exists() or not text:
                continue
            process = int(text.split()[1])
            os.kill(process, signal.SIGSTOP)
            if part.exists():  # it was done just before
                os.kill(process, signal.SIGCONT)
                continue
            os.kill(process, signal.SIGKILL)
            killed.append(part.name)
            break
        time.sleep(0.002)


def test_with_a_worker_killed_each_image_is_coded_once(cluster, model, images, tmp_path, capfd):
    folder, expected = images
    output, killed, stopped = tmp_path / "codes", [], threading.Event()
    given = [str(folder), "--checkpoint", str(model), "-o", str(output), "--block", str(BLOCK)]
    watcher = threading.Thread(
        target=kill_one, args=(Path(f"{output}.parts"), killed, stopped), daemon=True
    )
    watcher.start()
    try:
        assert cluster_command([*given, "--replicas", "2"]) == 0
    finally:
        stopped.set()
        watcher.join()
    assert len(killed) == 1
    assert rows_of(output) == expected
    said = capfd.readouterr()
    assert "ray" not in (said.out + said.err).lower()


def rows_of(output):
    """Path -> code; each is there once."""
    rows = [row for table in open_output(str(output)).tables() for row in table.to_pylist()]
    codes = {row["path"]: row["code"] for row in rows}
    assert len(codes) == len(rows)
    return codes


@pytest.mark.parametrize(
    ("nodes", "asked", "expected"),
    [
        ([{"CPU": 4.0}], {}, (4, "cpu", 1)),
        ([{"CPU": 4.0}], {"replicas": 2}, (2, "cpu", 2)),
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 30.0}, {"CPU": 24.0, "GPU": 2.0}], {}, (4, "cuda", 4)),
        ([{"CPU": 8.0, "GPU": 2.0}], {"device": "cpu"}, (8, "cpu", 1)),
        ([{"CPU": 8.0, "GPU": 2.0}], {"device": "auto", "replicas": 1}, (1, "cuda", 4)),
    ],
)
def test_workers_are_one_a_gpu_or_one_a_core(nodes, asked, expected, monkeypatch):
    from search import cluster_ray

    total = {name: sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
    alive = [{"Alive": True, "Resources": node} for node in nodes]
    alive.append({"Alive": False, "Resources": {"GPU": 8.0}})
    monkeypatch.setattr(cluster_ray.ray, "cluster_resources", lambda: total)
    monkeypatch.setattr(cluster_ray.ray, "nodes", lambda: alive)
    found = cluster_ray.choose_workers(asked.get("device"), asked.get("replicas"))
    assert (found.count, found.device, found.cores) == expected


def test_more_copies_than_the_cluster_has_room_for_are_refused(
    cluster, model, images, tmp_path, capfd
):
    given = [str(images[0]), "--checkpoint", str(model), "-o", str(tmp_path / "codes")]
    assert cluster_command([*given, "--replicas", "1000"]) == 2
    assert "--replicas 1000, but the cluster has" in capfd.readouterr().err
