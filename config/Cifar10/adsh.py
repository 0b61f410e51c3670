"""CIFAR-10, ADSH: 1,000 queries, a database of 59,000 whose codes are learned directly.

--opts training_opt.code_length=12 (24, 32, 48) gives the published lengths.
"""

config = {
    "training_opt": {
        "dataset": "Cifar10",
        "method": "adsh",
        "log_dir": "./logs/Cifar10/{code_length}bits_seed{seed}/adsh",
        "num_classes": 10,
        "code_length": 32,
        "image_size": 224,
        "batch_size": 64,
        "optimizer": {"name": "AdamW", "params": {"lr": 1e-3, "weight_decay": 0.05}},
        "scheduler": {"name": "CosineAnnealingLR", "params": {}},
        "warmup_epochs": 2,
        "augmentation": {"crop_scale": [0.4, 1.0], "interpolation": "bicubic"},
        "evaluate_interval": 10,  # turns
        "evaluation_batch_size": 500,
        "seed": 0,
    },
    "data": {
        "def_file": "./data/image_folder.py",
        "params": {"folder": "Cifar10", "join": True},  # all 60,000 images are one pool
        "protocol": "cifar10_59000",
        "validation_per_class": 50,  # held out: coded by the network in the end
    },
    "networks": {
        "feat_model": {
            "def_file": "./models/backbone.py",
            "params": {"arch": "efficientnet_lite0"},
            "optim_params": {"lr": 2e-4},  # pretrained: a fifth of the head's rate
            "weights": "default",
        },
        "hash_head": {"def_file": "./models/flat_head.py"},
    },
    "criterions": {
        "pairs": {"def_file": "./loss/adsh.py", "loss_params": {"gamma": 200.0}},
    },
    "engine": "alternate",
    "alternate": {
        "samples": 2000,
        "iterations": 50,
        "epochs": 3,
        "dissimilar": "auto",  # S is 1 or -(similar pairs / dissimilar pairs)
    },
}
