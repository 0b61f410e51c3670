"""ImageNet100, long-tailed, stage 1: backbone, feature layer, hash layer and classifier.

The balanced set of the paper keeps 100 images a class:
`--opts training_opt.imbalance_factor=1 data.n_max=100`.
"""

config = {
    "training_opt": {
        "dataset": "ImageNet_LT",
        "method": "direct",
        "log_dir": "./logs/ImageNet_LT/if{imbalance_factor}_{code_length}bits_seed{seed}/stage_1",
        "imbalance_factor": 100,
        "num_classes": 100,
        "code_length": 64,
        "feature_dim": 2000,
        "image_size": 224,
        "num_epochs": 30,
        "batch_size": 64,
        "optimizer": {"name": "AdamW", "params": {"lr": 1e-3, "weight_decay": 0.2}},
        "scheduler": {"name": "CosineAnnealingLR", "params": {}},
        "warmup_epochs": 2,
        "augmentation": {"crop_scale": [0.4, 1.0], "trivial_augment": True},
        "sampler": "class_aware",
        "evaluate_interval": 20,
        "num_workers": 16,
        "top_k": [100, 1000],
        "seed": 0,
    },
    "data": {
        "def_file": "./data/image_folder.py",
        "params": {"folder": "ImageNet100"},  # train/<class>/*, test/<class>/*
        "n_max": 1300,
    },
    "networks": {
        "feat_model": {
            "def_file": "./models/backbone.py",
            "params": {"arch": "efficientnet_lite0"},
            "optim_params": {"lr": 5e-5},  # pretrained: a twentieth of the heads' rate
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
