"""CIFAR-100, long-tailed, OrthoHash: one cosine softmax towards orthogonal binary targets."""

from stage_1 import config as stage_1

training_opt = stage_1["training_opt"]

config = {
    **stage_1,
    "training_opt": {
        **training_opt,
        "method": "orthohash",
        "log_dir": training_opt["log_dir"].replace("stage_1", "orthohash"),
    },
    "networks": {
        "feat_model": stage_1["networks"]["feat_model"],
        "hash_head": {"def_file": "./models/normalized_head.py"},
    },
    "criterions": {"targets": {"def_file": "./loss/orthohash.py"}},
}
