"""Digits, long-tailed: PCA of the pixels and signs, what every learned code must beat."""

from stage_1 import config as stage_1

training_opt = stage_1["training_opt"]

config = {
    "training_opt": {
        **{key: training_opt[key] for key in ("dataset", "imbalance_factor", "code_length")},
        "method": "pcah",
        "log_dir": training_opt["log_dir"].replace("stage_1", "pca_sign"),
        "image_size": 8,
        "top_k": training_opt["top_k"],
        "seed": training_opt["seed"],
    },
    "data": stage_1["data"],
    "networks": {"feat_model": {"def_file": "./models/pixels.py"}},
    "engine": "shallow",
    "hasher": {"def_file": "./models/pca_hashing.py"},
}
