"""The README.md of a published model: what it is, how well it retrieves, how to use it."""

import shlex
from pathlib import Path
from typing import Any

from engine.preprocessing import steps
from utils.def_file import PROJECT

NO_LICENCE = "None is stated. Ask who published this folder before you use or pass on its weights."
_CARD = """\
# {title}

Binary codes for image retrieval: {codes}, method `{method}`, trained on {dataset}{imbalance}.

## Figures

Measured on the queries after training, with ties {ties}; metrics.json holds more.

{figures}

## Data and split

{data}

## How to use it

From the folder of the project, Long-Tail Hashing{commit}:

```
FOLDER={folder}
python -m engine.encode --checkpoint "$FOLDER" my_images/ -o codes.npz{code_length}
python main.py --config "$FOLDER/config.yaml" --test --checkpoint "$FOLDER"
```

The first codes any images. The second repeats the test, with the data under $LTH_DATA_ROOT, and
leaves its figures in {log_dir}. With `--opts networks.<name>.weights=$FOLDER` a training starts
from its networks. Each checks the checksums first, and refuses the folder if a file was changed.
{needs}
An image becomes a code so:

{steps}
{last_step}. the sign of each output is a bit: 1 from 0 up
{alternate}
## Training

{training}

## Environment

{environment}

## Files

{files}

## Licence

{licence}
"""
_ALTERNATE = """
The codes of the database were learned, not computed: `database_codes.npz` holds them, and the
figures above are of queries coded by the network against them. `engine.encode` codes every image
with the network, so that its codes of database images are others than these.
"""
_FILES = {
    "model.safetensors": "the weights, `<network>.<tensor>`",
    "config.yaml": "the resolved config: networks, losses, schedule, data",
    "preprocessing.json": "how an image becomes what the networks see",
    "model.json": "classes in the order of their numbers, epoch, digests",
    "database_codes.npz": "learned codes of the database, by image name",
    "split.json": "which images were trained on, validated and asked with",
    "metrics.json": "all figures of the test",
    "environment.json": "what the run, and what made this folder, ran on",
    "checksums.txt": "SHA-256 of every other file: `sha256sum -c checksums.txt`",
}


def model_card(
    folder: Path,
    config: dict[str, Any],
    about: dict[str, Any],
    metrics: list[dict[str, Any]],
    split: dict[str, Any],
    licence: str | None,
) -> str:
    """The card of a model that is published in `folder`.

    metrics: metrics.json's values, one dict a code length.
    """
    first, options = metrics[0], config["training_opt"]
    bits = [each["code_length"] for each in metrics]
    factor = first["imbalance_factor"]
    imbalance = f", imbalance factor {factor:g}" if factor else ""
    alternate = config["engine"] == "alternate"
    codes = f"{' or '.join(map(str, bits))} bits"
    prepared = steps(about["preprocessing"])
    left_out = () if alternate else ("database_codes.npz",)
    commit = first["environment"]["commit"]
    return _CARD.format(
        title=f"{first['method']}, {first['dataset']}{imbalance}, {codes}",
        codes=codes,
        method=first["method"],
        dataset=first["dataset"],
        imbalance=imbalance,
        ties=first["ties"],
        figures=_figures(metrics),
        data=_data(first, split),
        commit="" if commit == "unknown" else f" (trained at commit {commit})",
        folder=shlex.quote(_from_here(folder)),
        code_length=f" --code_length {bits[0]}" if len(bits) > 1 else "",
        log_dir=options["log_dir"],
        needs=_needs(config),
        steps="\n".join(f"{number}. {step}" for number, step in enumerate(prepared, 1)),
        last_step=len(prepared) + 1,
        alternate=_ALTERNATE if alternate else "",
        training=_training(config, about, first),
        environment=_environment(first),
        files=_bullets({k: v for k, v in _FILES.items() if k not in left_out}, "`"),
        licence=licence or NO_LICENCE,
    )


def _needs(config: dict[str, Any]) -> str:
    """Which code of the publisher's own the networks are made by."""
    def_files = [network["def_file"] for network in config["networks"].values()]
    foreign = [
        each for each in def_files if (PROJECT / each).resolve().parent != PROJECT / "models"
    ]
    if not foreign:
        return ""
    return (
        f"\nIts networks need {', '.join(foreign)}, which is not part of the project: ask for it, "
        'and name the config yourself, `--config "$FOLDER/config.yaml"`, to let it run.\n'
    )


def _figures(metrics: list[dict[str, Any]]) -> str:
    """A row a code length."""
    rows = []
    for each in metrics:
        groups = {f"MAP {name}-shot": value for name, value in each["groups"].items()}
        at_k = {f"MAP@{k}": value for k, value in each["map_at_k"].items()}
        accuracy = {"accuracy": each["accuracy"]} if "accuracy" in each else {}
        rows.append({"MAP": each["map"], **groups, **at_k, **accuracy})
    head = ["bits", *rows[0]]
    lines = [head, ["---"] * len(head)]
    for each, row in zip(metrics, rows, strict=True):
        shown = ["-" if value is None else f"{value:.4f}" for value in row.values()]
        lines.append([str(each["code_length"]), *shown])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _data(metrics: dict[str, Any], split: dict[str, Any]) -> str:
    sizes = [each["size"] for each in split["classes"]]
    counts = ", ".join(f"{count:,} {role}" for role, count in metrics["counts"].items())
    return _bullets(
        {
            "Data": f"{metrics['dataset']}, {len(sizes)} classes of {min(sizes)} to {max(sizes)} "
            "training images",
            "Protocol": metrics["protocol"],
            "Images": counts,
            "Headline": f"{metrics['metric']} {metrics['headline']:.4f}",
            "Split": f"`{metrics['split_digest']}` (split.json)",
        }
    )


def _training(config: dict[str, Any], about: dict[str, Any], metrics: dict[str, Any]) -> str:
    options = config["training_opt"]
    networks = [
        f"{name}: `{each['def_file']}` {each['params'] or ''}".strip()
        for name, each in config["networks"].items()
    ]
    losses = [f"`{each['def_file']}`" for each in config["criterions"].values()]
    return _bullets(
        {
            "Config": f"`{metrics['config']}`, resolved in config.yaml",
            "Networks": "; ".join(networks),
            "Losses": ", ".join(losses),
            "Epochs": _epochs(options["num_epochs"], about),
            "Seed": str(metrics["seed"]),
        }
    )


def _epochs(count: int, about: dict[str, Any]) -> str:
    score = f"MAP {about['best_map']:.4f}"
    if not count:
        return f"none: a memory beside weights of another run (validation queries: {score})"
    return (
        f"{count}; the weights are those after epoch {about['best_epoch']}, the best on "
        f"validation queries ({score})"
    )


def _environment(metrics: dict[str, Any]) -> str:
    found = metrics["environment"]
    return (
        f"Python {found['python']}, torch {found['torch']}, {found['gpu'] or 'no GPU'}; tested on "
        f"{metrics['date'][:10]}. Codes are the same bit for bit on the same kind of device, with "
        "the same libraries, batch size and number of threads; elsewhere a bit whose output is "
        "nearly 0 may turn."
    )


def _bullets(values: dict[str, str], quote: str = "") -> str:
    return "\n".join(f"- {quote}{name}{quote}: {value}" for name, value in values.items())


def _from_here(folder: Path) -> str:
    """The folder's path from the working folder if it is in it, else its name alone."""
    absolute, here = folder.resolve(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else absolute.name
