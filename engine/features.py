"""Features of every image of a dataset, in a file: `python -m engine.features --config FILE`.

Runs a config's first network, or GIST, over the config's data and writes what
`data.features.write_features` describes. Subsets stay as they are, so that protocols and splits
apply to the features as to the images.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from data.features import SUFFIX, Stored, write_features
from data.samplers import evaluation_batches
from engine.build import check_config_parts
from engine.config import RunConfig, load_config
from engine.options import MemoryOptions, NetworkOptions
from engine.run import Run, open_run
from engine.shallow import feature_batches
from utils.def_file import in_project
from utils.environment import environment
from utils.errors import UserError
from utils.log import start_logging
from utils.parser import OneLineParser

EXAMPLES = """\
examples:
  python -m engine.features --config config/Cifar10_Gist/images.py --out data/cifar10_gist.npz
  python -m engine.features --config config/Cifar10/hashnet.py --gist \\
      --opts training_opt.image_size=32 --out data/cifar10_gist.npz
  python -m engine.features --config config/Cifar10/hashnet.py --out data/cifar10_resnet50.npz \\
      --opts networks.feat_model.params.arch=resnet50
"""


def feature_config(config: RunConfig, gist: bool) -> RunConfig:
    """The config with its first network only, or with GIST in its place."""
    if gist:
        networks = {"feat_model": NetworkOptions("./models/gist.py")}
    else:
        networks = dict(list(config.networks.items())[:1])
    if not networks:
        raise UserError(f"{config.path}: networks is empty; give --gist or a config with a network")
    return replace(config, networks=networks, memory=MemoryOptions())


@torch.inference_mode()
def extract(run: Run, dtype: torch.dtype) -> NDArray[Any]:
    """Features (n, d) of every image of the run's source, in its order.

    They are collected on the device; a float16 that cannot hold a value holds infinity.

    Raises:
        UserError: as `feature_batches`.
    """
    count = len(run.dataset.source)
    batches = evaluation_batches(np.arange(count), run.config.training_opt.evaluation_batch_size)
    features: Tensor | None = None
    start = 0
    for rows in tqdm(feature_batches(run, batches), "features", len(batches)):
        if features is None:
            features = torch.empty((count, rows.shape[1]), dtype=dtype, device=run.device)
        features[start : start + len(rows)] = rows
        start += len(rows)
    assert features is not None
    return features.cpu().numpy()


def describe_origin(run: Run) -> dict[str, Any]:
    """What made the features, for the file."""
    options = run.config.training_opt
    (network,) = run.config.networks.values()
    return {
        "network": network.def_file,
        "params": network.params,
        "weights": network.weights,
        "image_size": options.image_size,
        "bf16": run.precision.bf16,
        "config": in_project(run.config.path),
        "environment": environment(run.device),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def make_feature_file(config: RunConfig, out: str, dtype: Stored = "float16") -> None:
    """Write the features of the config's data by its one network to the file `out`.

    Raises:
        UserError: for a mistake in config, data or weights, or features that `dtype` cannot hold.
    """
    if not out.endswith(SUFFIX):  # before minutes are spent
        raise UserError(f"--out {out}: expected a name that ends in {SUFFIX}")
    check_config_parts(config)
    run = open_run(config)
    with run.timed("features"):
        features = extract(run, getattr(torch, dtype))
    write_features(out, run.dataset.source, features, describe_origin(run), dtype)
    seconds = run.seconds["features"]
    print(
        f"{out}: {features.shape[0]} x {features.shape[1]} {dtype}, {features.nbytes / 1e6:.0f} MB;"
        f" {seconds:.1f} s, {len(features) / seconds:.0f} images/s"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 2 after a one-line message on a user's mistake."""
    parser = OneLineParser(
        prog="python -m engine.features",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="names data and network")
    parser.add_argument("--out", required=True, metavar="FILE", help="the feature file, .npz")
    parser.add_argument("--opts", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    parser.add_argument("--gist", action="store_true", help="GIST in place of the network")
    parser.add_argument(
        "--dtype", choices=["float16", "float32"], default="float16", help="[float16]"
    )
    options = parser.parse_args(arguments)
    start_logging()
    try:
        config = feature_config(load_config(options.config, options.opts), options.gist)
        make_feature_file(config, options.out, options.dtype)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
