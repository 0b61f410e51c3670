"""Publish a run: `python -m engine.publish RUN` writes one folder that others can use and verify.

RUN is the folder of a finished run. The new folder, by default RUN/published, holds the best
checkpoint's weights (safetensors), the resolved config, how images are prepared, split, figures,
environment, a model card (README.md) and checksums. It appears whole or not at all.
"""

import argparse
import importlib.metadata
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.checkpoint import BEST
from engine.config import RunConfig, load_config
from engine.model_card import model_card
from engine.open_model import open_model
from engine.published_folder import new_folder, write_model
from utils.atomic_file import write_json, write_text
from utils.environment import commit
from utils.errors import UserError
from utils.log import start_logging
from utils.parser import OneLineParser
from utils.stop_signals import SIGNALS, Stopped

EXAMPLES = """\
examples:
  python -m engine.publish logs/Digits_LT/if50_32bits_seed0/stage_1
  python -m engine.publish logs/Image_Folder/64bits_seed0/stage_1 -o published/my_images \\
      --licence "CC BY 4.0"
  python -m engine.encode --checkpoint published/my_images new_images/ -o codes.npz

Exit status: 0 done; 2 a mistake (one line says which); 130 after SIGINT, 143 after SIGTERM.
"""
ABOUT = ("epoch", "best_epoch", "best_map", "source", "split_digest", "class_names", "class_counts")
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "safetensors")


def publish(run: Path, folder: Path, licence: str | None = None) -> None:
    """Write the best model of a finished run into a new folder.

    Raises:
        UserError: the run is not finished or keeps no weights, or the folder cannot be written.
    """
    config = _config_of_finished(run)
    model = open_model(run, config, {"device": "cpu"})  # also for whether weights and config fit
    metrics = _without_places(_read_json(run / "metrics.json"))
    split, checkpoint = _read_json(run / "split.json"), model.checkpoint
    figures = _figures_of(metrics, checkpoint, run)
    about = {"preprocessing": model.preprocessing, "model_digest": model.digest}
    plain = _for_others(checkpoint["config"], folder)
    try:
        about = {**{name: checkpoint[name] for name in ABOUT}, **about}
        about["recipe"] = checkpoint.get("recipe", "")  # a run of before has none
        card = model_card(folder, plain, about, figures, split, licence)
        environment = _environment(figures[0])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{run} holds other figures than a run of this version leaves ({error}); test it anew"
        ) from error
    with new_folder(folder) as temporary:
        write_model(temporary, {**checkpoint, "config": plain}, about)
        write_json(temporary / "split.json", split)
        write_json(temporary / "metrics.json", metrics)
        write_json(temporary / "environment.json", environment)
        write_text(temporary / "README.md", card)


def _config_of_finished(run: Path) -> RunConfig:
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} is no run's folder: it holds no config.yaml")
    config = load_config(str(run / "config.yaml"))
    if config.engine == "shallow":
        raise UserError(f"{run} is of a shallow method, which keeps no weights: nothing to publish")
    for name in (BEST, "split.json", "metrics.json"):
        if not (run / name).is_file():
            raise UserError(f"{run} is not finished: it holds no {name}; go on with --resume")
    return config


def _for_others(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A config for other machines, whose tests have a folder of their own."""
    plain = _without_places(config)
    name = folder.resolve().name.replace("{", "{{").replace("}", "}}")
    own = {"data_root": None, "device": "auto", "log_dir": f"./logs/published/{name}"}
    return {**plain, "training_opt": {**plain["training_opt"], **own}}


def _figures_of(
    metrics: dict[str, Any], checkpoint: dict[str, Any], run: Path
) -> list[dict[str, Any]]:
    """The figures of each code length, which must be the checkpoint's."""
    try:
        figures = metrics.get("runs", [metrics])
        tested = [(each["split_digest"], each["checkpoint"]["epoch"]) for each in figures]
    except (AttributeError, LookupError, TypeError) as error:
        raise UserError(
            f"{run / 'metrics.json'} holds no figures of a run; test it anew"
        ) from error
    if set(tested) != {(checkpoint["split_digest"], checkpoint["best_epoch"])}:
        raise UserError(
            f"{run} is not finished: metrics.json is of another checkpoint than {BEST}; go on "
            "with --resume, or test it anew with --test"
        )
    return figures


def _without_places(value: Any) -> Any:
    """A copy of plain values in which absolute paths are only their last part."""
    if isinstance(value, dict):
        return {name: _without_places(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_places(each) for each in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _environment(metrics: dict[str, Any]) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    published = {"python": platform.python_version(), **versions, "commit": commit()}
    return {"run": metrics["environment"], "published_with": published}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); test the run anew with --test"
        ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see EXAMPLES for its exit status."""
    parser = OneLineParser(
        prog="python -m engine.publish",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="folder of a finished run")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="the new folder [RUN/published]")
    parser.add_argument("--licence", metavar="TEXT", help="for the model card [none is stated]")
    options = parser.parse_args(arguments)
    start_logging()
    run = Path(options.run)
    folder = Path(options.output) if options.output else run / "published"
    try:
        with SIGNALS.handled():
            publish(run, folder, options.licence)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Stopped as stop:
        print("interrupted; nothing was published", file=sys.stderr)
        return stop.status
    print(f"{folder}: published; its README.md says how to use it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
