"""CIFAR-100, long-tailed, CSQ: codes are drawn to their class's hash centre."""

from stage_1 import config as stage_1

training_opt = stage_1["training_opt"]

config = {
    **stage_1,
    "training_opt": {
        **training_opt,
        "method": "csq",
        "log_dir": training_opt["log_dir"].replace("stage_1", "csq"),
    },
    "networks": {
        "feat_model": stage_1["networks"]["feat_model"],
        "hash_head": {
            "def_file": "./models/pairwise_head.py",
            "params": {"growth": 0.0},  # no continuation
        },
    },
    "criterions": {
        "centers": {"def_file": "./loss/csq.py"},
        "quantization": {"def_file": "./loss/quantization.py", "weight": 1e-4},
    },
}
