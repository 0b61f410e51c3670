"""NUS-WIDE, HashNet: the 21 most frequent concepts, several an image, scored by MAP@5000."""

config = {
    "training_opt": {
        "dataset": "NUS_WIDE",
        "method": "hashnet",
        "log_dir": "./logs/NUS_WIDE/{code_length}bits_seed{seed}/hashnet",
        "num_classes": 21,
        "code_length": 64,
        "feature_dim": 2000,
        "image_size": 224,
        "num_epochs": 40,
        "batch_size": 128,
        "optimizer": {"name": "AdamW", "params": {"lr": 1e-3, "weight_decay": 0.2}},
        "scheduler": {"name": "CosineAnnealingLR", "params": {}},
        "warmup_epochs": 2,
        "augmentation": {"crop_scale": [0.4, 1.0]},
        "sampler": "uniform",  # half of all pairs share a concept as it is
        "evaluate_interval": 10,
        "evaluation_batch_size": 500,
        "num_workers": 16,
        "seed": 0,
    },
    "data": {
        "def_file": "./data/nus_wide.py",
        "params": {"folder": "NUS_WIDE"},  # Groundtruth/, ImageList/, Flickr/<folder>/*.jpg
        "protocol": "nus_wide_tc21",
        "on_leak": "warn",  # Flickr users put up some pictures twice; the protocol counts all
    },
    "networks": {
        "feat_model": {
            "def_file": "./models/backbone.py",
            "params": {"arch": "efficientnet_lite0"},
            "optim_params": {"lr": 1e-4},  # pretrained: a tenth of the heads' rate
            "weights": "default",
        },
        "hash_head": {
            "def_file": "./models/pairwise_head.py",
            "params": {"growth": 50.0},  # of beta; 0 keeps it at 1
        },
    },
    "criterions": {"pairs": {"def_file": "./loss/hashnet.py"}},
    "memory": {"centroids": False},
}
