"""CIFAR-100, long-tailed, LTHNet by its published recipe: one stage, the memory from the start.

Chen et al., "Long-tail Hashing", SIGIR 2021, k = 3, but for the backbone, which is stage 1's.
"""

from stage_1 import config as stage_1

training_opt = stage_1["training_opt"]

config = {
    **stage_1,
    "training_opt": {
        **training_opt,
        "method": "lthnet",
        "log_dir": training_opt["log_dir"].replace("stage_1", "lthnet_published"),
        "num_epochs": 100,
        "batch_size": 16,
        "optimizer": {"name": "RMSprop", "params": {"lr": 1e-5, "weight_decay": 5e-4}},
        "scheduler": {"name": "CosineAnnealingLR", "params": {"eta_min": 1e-7}},  # a hundredth
        "warmup_epochs": 0,
        # Nothing is drawn: the authors' code trains on the images as they are.
        "augmentation": {"crop_scale": [1.0, 1.0], "crop_ratio": [1.0, 1.0], "flip": False},
        "sampler": "uniform",  # the loss balances
    },
    "networks": {
        "feat_model": {
            **stage_1["networks"]["feat_model"],
            "optim_params": None,  # one rate for all
            "fix_statistics": False,
        },
        "hash_head": {"def_file": "./models/meta_embedding_head.py"},
    },
    "criterions": {
        "classification": {
            "def_file": "./loss/class_balanced.py",
            "loss_params": {"beta": 0.99},
        },
    },
    "memory": {"centroids": True, "dpp_samples": 3},
}
