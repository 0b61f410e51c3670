"""CIFAR-100, long-tailed, stage 1: backbone, feature layer, hash layer and classifier.

The paper's backbone is one line away: `--opts networks.feat_model.params.arch=resnet34` (its
ImageNet weights are downloaded).
"""

config = {
    "training_opt": {
        "dataset": "Cifar100_LT",
        "method": "direct",
        "log_dir": "./logs/Cifar100_LT/if{imbalance_factor}_{code_length}bits_seed{seed}/stage_1",
        "imbalance_factor": 100,  # 1, 10, 20, 50 and 100 have published sizes
        "num_classes": 100,
        "code_length": 64,
        "feature_dim": 2000,
        "image_size": 224,
        "num_epochs": 30,
        "batch_size": 64,
        "optimizer": {"name": "AdamW", "params": {"lr": 1e-3, "weight_decay": 0.2}},
        "scheduler": {"name": "CosineAnnealingLR", "params": {}},
        "warmup_epochs": 2,
        "augmentation": {
            "crop_scale": [0.4, 1.0],
            "interpolation": "bicubic",
            "trivial_augment": True,
        },
        "sampler": "class_aware",
        "evaluate_interval": 20,
        "evaluation_batch_size": 500,
        "top_k": [100, 1000],
        "seed": 0,
    },
    "data": {
        "def_file": "./data/image_folder.py",
        "params": {"folder": "Cifar100"},  # train/<class>/*, test/<class>/*
        "n_max": 500,
        "on_leak": "warn",  # CIFAR-100 as published holds 10 queries that are also training images
    },
    "networks": {
        "feat_model": {
            "def_file": "./models/backbone.py",
            "params": {"arch": "efficientnet_lite0"},
            "optim_params": {"lr": 5e-5},  # pretrained, and few images
            "fix_statistics": True,  # those of ImageNet: few images a class give poor ones
            "weights": "default",
        },
        "hash_head": {"def_file": "./models/direct_head.py"},
    },
    "criterions": {
        "classification": {"def_file": "./loss/cross_entropy.py"},  # the sampler balances
    },
    "memory": {"centroids": False},
}
