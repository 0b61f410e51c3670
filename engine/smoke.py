"""--smoke: a config's every part for two steps, on made-up images, with no data or weights."""

from dataclasses import replace
from pathlib import Path

from data.protocol import load_protocol
from engine.checkpoint import BEST
from engine.config import RunConfig
from engine.options import DataOptions, NetworkOptions

NUM_CLASSES = 6
IMAGES_PER_CLASS = 12
LARGEST_IMAGE = 64  # pixels; enough for every backbone, quick on a CPU


def smoke_configs(config: RunConfig, folder: Path) -> list[RunConfig]:
    """What a smoke run trains in `folder`: the small config, after a base run if it needs one."""
    small = smoke_config(config, folder / "run")
    if not (small.alternate and small.alternate.base):
        return [small]
    base = replace(
        small,
        training_opt=replace(small.training_opt, log_dir=str(folder / "base")),
        data=replace(small.data, train_classes=NUM_CLASSES // 2),
        alternate=replace(small.alternate, base=None),
    )
    arriving = replace(small.alternate, base=str(folder / "base" / BEST))
    return [base, replace(small, alternate=arriving)]


def smoke_config(config: RunConfig, log_dir: Path) -> RunConfig:
    """The config on synthetic images, two steps an epoch, without weights, in `log_dir`."""
    options = config.training_opt
    image_size = min(options.image_size, LARGEST_IMAGE)
    queries = 2
    protocol = load_protocol(config.data.protocol) if config.data.protocol else None
    multi_label = protocol is not None and protocol.multi_label
    open_classes = 0 if multi_label else 1  # images of several classes are none's alone
    data = DataOptions(
        def_file="./data/synthetic.py",
        params={
            "num_classes": NUM_CLASSES + open_classes,
            "image_size": image_size,
            "images_per_class": IMAGES_PER_CLASS,
            "multi_label": multi_label,
        },
        queries_per_class=queries,
        validation_per_class=2,
        open_classes=open_classes,
        train_classes=config.data.train_classes and NUM_CLASSES // 2,
    )
    batch_size = NUM_CLASSES * (IMAGES_PER_CLASS - 2 * queries) // 2
    training_opt = replace(
        options,
        log_dir=str(log_dir),
        image_size=image_size,
        num_epochs=min(options.num_epochs, 1),
        warmup_epochs=0,
        evaluate_interval=1,
        batch_size=batch_size,
        code_length=_few_bits(options.code_length, config.engine),
        feature_dim=min(options.feature_dim, 32),
        imbalance_factor=None,
        num_classes=None,
        num_workers=0,
        device="auto",
    )
    alternate = config.alternate
    if alternate:
        alternate = replace(alternate, samples=batch_size, iterations=2, epochs=1)
        training_opt.num_epochs = 2
    networks = {name: replace(each, weights=None) for name, each in config.networks.items()}
    if not networks:  # the config reads features: here the pixels are
        networks["pixels"] = NetworkOptions("./models/pixels.py")
    return replace(
        config, training_opt=training_opt, data=data, networks=networks, alternate=alternate
    )


def _few_bits(code_length: int | list[int], engine: str) -> int | list[int]:
    """A short code for a small network; networks that learn several lengths need each of them."""
    if isinstance(code_length, int):
        return min(code_length, 16)
    return min(*code_length, 16) if engine == "shallow" else code_length
