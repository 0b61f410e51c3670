"""A small config that the engine's tests train in a second."""

from pathlib import Path

from engine.config import RunConfig, check_config

HEADS = {"direct": "./models/direct_head.py", "meta": "./models/meta_embedding_head.py"}


def make_config(log_dir: Path, head: str = "direct", **changes: object) -> RunConfig:
    """A small CNN on made-up images: 5 classes of 16 pictures, 8 bits, 2 epochs.

    `changes` are training options, but for `data`, `networks`, `criterions`, `memory`, which
    update these sections.
    """
    sections = {
        "data": {
            "def_file": "./data/synthetic.py",
            "params": {"num_classes": 5, "image_size": 8, "images_per_class": 16},
            "queries_per_class": 4,
            "validation_per_class": 2,
        },
        "networks": {
            "feat_model": {"def_file": "./models/small_cnn.py", "params": {"width": 4}},
            "hash_head": {"def_file": HEADS[head]},
        },
        "criterions": {"classification": {"def_file": "./loss/cross_entropy.py"}},
        "memory": {"centroids": head == "meta", "dpp_samples": 2 if head == "meta" else 0},
    }
    for name in sections:
        sections[name] = {**sections[name], **changes.pop(name, {})}
    training_opt = {
        "dataset": "Synthetic",
        "method": head,
        "log_dir": str(log_dir),
        "code_length": 8,
        "feature_dim": 16,
        "image_size": 8,
        "imbalance_factor": 4,
        "num_epochs": 2,
        "batch_size": 8,
        "evaluate_interval": 1,
        "top_k": [5],
        "device": "cpu",
        **changes,
    }
    return check_config({"training_opt": training_opt, **sections}, "test_config.py")
