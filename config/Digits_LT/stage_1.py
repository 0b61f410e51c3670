"""Digits, long-tailed, stage 1: backbone, feature layer, hash layer and classifier."""

config = {
    "training_opt": {
        "dataset": "Digits_LT",
        "method": "direct",
        "log_dir": "./logs/Digits_LT/if{imbalance_factor}_{code_length}bits_seed{seed}/stage_1",
        "imbalance_factor": 50,
        "code_length": 32,
        "feature_dim": 1024,
        "image_size": 16,  # the 8 x 8 digits, enlarged
        "num_epochs": 80,
        "batch_size": 32,
        "optimizer": {"name": "AdamW", "params": {"lr": 3e-4, "weight_decay": 0.05}},
        "scheduler": {"name": "CosineAnnealingLR", "params": {}},
        "warmup_epochs": 2,
        "augmentation": {
            "crop_scale": [0.7, 1.0],
            "flip": False,  # a mirrored 2 is no 2
            "interpolation": "bicubic",
        },
        "sampler": "class_aware",
        "evaluate_interval": 10,
        "top_k": [10, 100],
        "seed": 0,
    },
    "data": {
        "def_file": "./data/digits.py",
        "queries_per_class": 30,
        "validation_per_class": 20,
    },
    "networks": {
        "feat_model": {"def_file": "./models/small_cnn.py", "params": {"width": 32}},
        "hash_head": {"def_file": "./models/direct_head.py"},
    },
    "criterions": {
        "classification": {
            "def_file": "./loss/cross_entropy.py",  # the sampler balances the classes
            "loss_params": {"label_smoothing": 0.1},
        },
    },
    "memory": {"centroids": False},
}
