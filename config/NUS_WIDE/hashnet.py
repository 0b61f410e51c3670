"""NUS-WIDE, HashNet: the 21 most frequent concepts, several an image, scored by MAP@5000."""

from adsh import config as adsh

training_opt = adsh["training_opt"]

config = {
    "training_opt": {
        **training_opt,
        "method": "hashnet",
        "log_dir": training_opt["log_dir"].replace("adsh", "hashnet"),
        "code_length": 64,
        "feature_dim": 2000,
        "num_epochs": 40,
        "batch_size": 128,
        "optimizer": {"name": "AdamW", "params": {"lr": 1e-3, "weight_decay": 0.2}},
        "sampler": "uniform",  # half of all pairs share a concept as it is
        "evaluate_interval": 10,
    },
    "data": adsh["data"],
    "networks": {
        "feat_model": {
            **adsh["networks"]["feat_model"],
            "optim_params": {"lr": 1e-4},  # pretrained: a tenth of the heads' rate
        },
        "hash_head": {
            "def_file": "./models/pairwise_head.py",
            "params": {"growth": 50.0},  # of beta; 0 keeps it at 1
        },
    },
    "criterions": {"pairs": {"def_file": "./loss/hashnet.py"}},
    "memory": {"centroids": False},
}
