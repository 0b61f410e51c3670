"""Training on several machines is torchrun's: two launchers here meet as two machines do."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def launch(node, port, folder):
    """One machine's part of a run of two machines with a process each."""
    launcher = ["-m", "torch.distributed.run", "--nnodes=2", f"--node_rank={node}",
                "--nproc_per_node=1", "--rdzv_backend=c10d", "--rdzv_id=test",
                f"--rdzv_endpoint=localhost:{port}", "main.py"]  # fmt: skip
    options = {"log_dir": folder, "num_epochs": 1, "device": "cpu"}
    given = [f"training_opt.{name}={value}" for name, value in options.items()]
    command = [sys.executable, *launcher, "--config", "config/Digits_LT/stage_1.py", "--opts"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [*command, *given], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def test_two_launchers_find_each_other_and_train_one_model(tmp_path):
    port, folder = free_port(), tmp_path / "run"
    nodes = [launch(node, port, folder) for node in range(2)]
    try:
        said = [node.communicate(timeout=120)[0] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], said
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["environment"]["processes"] == 2
    assert sum("epoch 1: classification" in each for each in said) == 1
