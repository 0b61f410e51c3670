"""The page on an index of made-up codes, as a process of its own, for benchmarks of it."""

import datetime
import io
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.evaluation import cpu_name
from benchmarks.jpegs import QUALITY, enlarged
from benchmarks.rows import append_row
from benchmarks.search import BITS, Clustered
from search.coder import QUERY_OPTIONS, Coder
from search.opening import create_index
from search.rows import make_rows
from utils.cores import available_cores
from utils.environment import commit
from utils.errors import UserError

START = 120  # seconds until it answers
SMALL = 32  # pixels a side of what is enlarged


@dataclass(frozen=True)
class RunningPage:
    """The page's process, and where it listens."""

    process: "subprocess.Popen[str]"
    host: str
    port: int
    log: Path

    def peak_memory(self) -> int:
        """The most memory that the process has held, in MiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) >> 10

    def processor_seconds(self) -> float:
        """Processor time of all its threads so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running_page(index: Path, options: Sequence[str] = ()) -> Iterator[RunningPage]:
    """The page over an index, until the block ends; it must then end by itself, with status 0.

    Its standard error goes into `log`, beside the index.
    """
    command = [sys.executable, "-m", "search.page", str(index), "--port", "0", *options]
    log = index.with_name("page.log")
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stream, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "http://" not in line:
            raise RuntimeError(f"the page did not start: {log.read_text()[-300:]}")
        host, port = line.split("http://")[1].split("/")[0].rsplit(":", 1)
        yield RunningPage(process, host, int(port), log)
        process.terminate()
        if process.wait(START) != 0:
            raise RuntimeError(f"the page ended with status {process.returncode}")
    finally:
        process.kill()
        process.wait()


def make_index(folder: Path, checkpoint: str, items: int) -> Coder:
    """An index of clustered codes under the model's name, with pictures of the first few.

    Raises:
        UserError: there is no such model, or its codes have another length.
    """
    coder = Coder(checkpoint, options=QUERY_OPTIONS)
    images = folder / "images"
    coding = coder.coding(str(images))
    if coder.code_length != BITS:
        raise UserError(f"{checkpoint} gives codes of {coder.code_length} bits, expected {BITS}")
    index = create_index(folder / "index", coding)
    names = [f"train/{number % 100}/{number}.jpg" for number in range(items)]
    labels = [str(number % 100) for number in range(items)]
    rows = make_rows(items, path=names, label=labels, split=["database"] * items)
    index.add(Clustered()(items, np.random.default_rng(1)), rows, coder.digest)
    for number, content in enumerate(made_jpegs(8)):
        path = images / names[number]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return coder


def record(
    file: str | None, coder: Coder, items: int, clients: int, figures: dict[str, tuple[Any, str]]
) -> None:
    """Print figures, each (value, unit), and add them to a csv file, a row each."""
    config = coder.model.run.config
    base = {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "cpu": cpu_name(),
        "cores": available_cores(),
        "network": config.networks["feat_model"].params.get("arch"),
        "image_size": config.training_opt.image_size,
        "code_length": coder.code_length,
        "items": items,
        "clients": clients,
    }
    for name, (value, unit) in figures.items():
        print(f"{name} {value} {unit}".strip())
        if file:
            append_row(Path(file), {**base, "measure": name, "value": value, "unit": unit})


def busy_seconds() -> float:
    """Processor time of everything on this machine so far."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    busy = [int(fields[place]) for place in (0, 1, 2, 5, 6)]  # not idle, waiting or stolen
    return sum(busy) / os.sysconf("SC_CLK_TCK")


def made_jpegs(count: int) -> list[bytes]:
    """Different JPEG files of about the size of ImageNet's, 500 x 375 pixels and 90 kB."""
    found = []
    for number in range(count):
        rng = np.random.default_rng(number)
        small = Image.fromarray(rng.integers(0, 256, (SMALL, SMALL, 3), dtype=np.uint8))
        smooth = small.resize((SMALL // 4, SMALL // 4)).resize((SMALL, SMALL))
        stream = io.BytesIO()
        enlarged(smooth, number).save(stream, "JPEG", quality=QUALITY)
        found.append(stream.getvalue())
    return found
