"""One's own images, stage 1. Point training_opt.data_root at a folder with train/<class>/*.

Without a folder test/, queries are drawn from the training images. The long tail is their own.
Rates, epochs and augmentation are what did best on long-tailed CIFAR-100.
"""

config = {
    "training_opt": {
        "dataset": "Image_Folder",
        "method": "direct",
        "log_dir": "./logs/Image_Folder/{code_length}bits_seed{seed}/stage_1",
        "imbalance_factor": None,  # train on the images as they are
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
        "evaluate_interval": 10,
        "num_workers": 4,
        "top_k": [10, 100],
        "seed": 0,
    },
    "data": {"def_file": "./data/image_folder.py"},
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
