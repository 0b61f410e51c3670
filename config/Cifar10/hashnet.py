"""CIFAR-10, HashNet's protocol: 1,000 queries, 5,000 training images, a database of 59,000."""

config = {
    "training_opt": {
        "dataset": "Cifar10",
        "method": "hashnet",
        "log_dir": "./logs/Cifar10/{code_length}bits_seed{seed}/hashnet",
        "num_classes": 10,
        "code_length": 32,
        "feature_dim": 2000,
        "image_size": 224,
        "num_epochs": 60,
        "batch_size": 128,
        "optimizer": {"name": "AdamW", "params": {"lr": 1e-3, "weight_decay": 0.2}},
        "scheduler": {"name": "CosineAnnealingLR", "params": {}},
        "warmup_epochs": 2,
        "augmentation": {"crop_scale": [0.4, 1.0], "interpolation": "bicubic"},
        "sampler": "class_aware",
        "evaluate_interval": 10,
        "evaluation_batch_size": 500,
        "seed": 0,
    },
    "data": {
        "def_file": "./data/image_folder.py",
        "params": {"folder": "Cifar10", "join": True},  # all 60,000 images are one pool
        "protocol": "cifar10_5000",
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
    "criterions": {
        "pairs": {
            "def_file": "./loss/hashnet.py",
            "loss_params": {"scale": 5.0},  # better than 10 on held-out training images
        },
    },
    "memory": {"centroids": False},
}
