"""MIRFlickr-25K, ADSH: 24 labels, several an image; the codes of the database are learned."""

config = {
    "training_opt": {
        "dataset": "MIRFlickr",
        "method": "adsh",
        "log_dir": "./logs/MIRFlickr/{code_length}bits_seed{seed}/adsh",
        "num_classes": 24,
        "code_length": 32,
        "image_size": 224,
        "batch_size": 64,
        "optimizer": {"name": "AdamW", "params": {"lr": 1e-3, "weight_decay": 0.05}},
        "scheduler": {"name": "CosineAnnealingLR", "params": {}},
        "warmup_epochs": 2,
        "augmentation": {"crop_scale": [0.4, 1.0]},
        "evaluate_interval": 10,  # turns
        "evaluation_batch_size": 500,
        "top_k": [100, 1000, 5000],
        "num_workers": 16,
        "seed": 0,
    },
    "data": {
        "def_file": "./data/mirflickr.py",
        "params": {"folder": "MIRFlickr"},  # mirflickr/im<number>.jpg, annotations/<label>.txt
        "protocol": "mirflickr25k",
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
    "alternate": {"samples": 2000, "iterations": 50, "epochs": 3},
}
