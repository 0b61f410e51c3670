"""A model of the digits, and digits as picture files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from main import main as train


def train_model(folder: Path) -> Path:
    """The folder of a run of one epoch."""
    options = [f"training_opt.log_dir={folder}", "training_opt.num_epochs=1",
               "training_opt.device=cpu"]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.evaluate.write_results", lambda run, scored: None)
        assert train(["--config", "config/Digits_LT/stage_1.py", "--opts", *options]) == 0
    return folder


def write_digits(folder: Path, numbers: range) -> None:
    """Digits as `folder`/train/<class>/<number>.png."""
    digits = load_digits()
    for number in numbers:
        path = folder / "train" / str(digits.target[number]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = np.rint(digits.images[number] * (255 / 16)).astype(np.uint8)
        Image.fromarray(grey).save(path)
