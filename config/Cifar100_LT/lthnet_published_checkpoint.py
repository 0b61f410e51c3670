"""CIFAR-100, long-tailed: test a checkpoint of the authors' LTHNet, on their released folders.

--test --checkpoint FILE.pt; --opts training_opt.code_length=32 data.params.folder=Cifar100-IF100
for others. Images are read, resized and cropped as the authors' code does it, in float32.
"""

from lthnet_published import config as published

training_opt = published["training_opt"]

config = {
    **published,
    "training_opt": {
        **training_opt,
        "log_dir": "./logs/Cifar100_LT/{code_length}bits_seed{seed}/lthnet_published_checkpoint",
        "imbalance_factor": None,  # the folders are long-tailed
        "augmentation": {
            **training_opt["augmentation"],
            "interpolation": "bilinear",
            "crop_fraction": 0.875,  # resized to 256, of which the middle 224
        },
        "precision": "fp32",
    },
    "data": {
        "def_file": "./data/image_folder.py",
        "params": {"folder": "Cifar100-IF50"},  # {train,query,database}/<class>/*
        "cache_size": None,  # an image decoded into a cache is not cropped
        "on_leak": "warn",
    },
    "networks": {
        "lthnet": {"def_file": "./models/published_lthnet.py"},
    },
    "memory": {"centroids": True, "dpp_samples": 0},  # the authors' code keeps one row a class
}
