"""ImageNet100, long-tailed, HashNet: a pairwise loss, a hash layer sharpened by continuation."""

from stage_1 import config as stage_1

training_opt = stage_1["training_opt"]

config = {
    **stage_1,
    "training_opt": {
        **training_opt,
        "method": "hashnet",
        "log_dir": training_opt["log_dir"].replace("stage_1", "hashnet"),
        "num_epochs": 100,
        "batch_size": 128,  # of 100 classes: a similar image for most, as classes take turns
    },
    "networks": {
        "feat_model": {**stage_1["networks"]["feat_model"], "optim_params": {"lr": 1e-4}},
        "hash_head": {
            "def_file": "./models/pairwise_head.py",
            "params": {"growth": 50.0},  # of beta; 0 keeps it at 1
        },
    },
    "criterions": {
        "pairs": {
            "def_file": "./loss/hashnet.py",
            "loss_params": {"scale": 5.0},  # of 100 classes few codes can be opposite
        },
    },
}
