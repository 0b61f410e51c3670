"""CIFAR-10, the run before classes arrive: ADSH on 7 of the 10, asked about all."""

config = {
    "training_opt": {
        "dataset": "Cifar10_Incremental",
        "method": "adsh",
        "log_dir": "./logs/Cifar10_Incremental/{code_length}bits_seed{seed}/adsh_base",
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
        "validation_per_class": 50,
        "train_classes": 7,  # the first ones; queries and database keep all
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
    "alternate": {"samples": 2000, "iterations": 50, "epochs": 3},
}
