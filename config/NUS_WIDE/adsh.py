"""NUS-WIDE, ADSH: the 21 most frequent concepts, several an image, scored by MAP@5000.

The codes of the 10,500 training images are learned, those of the other database images are the
network's.
"""

config = {
    "training_opt": {
        "dataset": "NUS_WIDE",
        "method": "adsh",
        "log_dir": "./logs/NUS_WIDE/{code_length}bits_seed{seed}/adsh",
        "num_classes": 21,
        "code_length": 48,
        "image_size": 224,
        "batch_size": 64,
        "optimizer": {"name": "AdamW", "params": {"lr": 1e-3, "weight_decay": 0.05}},
        "scheduler": {"name": "CosineAnnealingLR", "params": {}},
        "warmup_epochs": 2,
        "augmentation": {"crop_scale": [0.4, 1.0]},
        "evaluate_interval": 25,  # turns: the network codes most of the database each time
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
