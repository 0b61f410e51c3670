"""CIFAR-10, EfficientNet-Lite0: spectral hashing on features made in the run; siblings read a file.

python -m engine.features --config config/Cifar10_Features/images.py \
    --out data/cifar10_efficientnet_lite0.npz
"""

config = {
    "training_opt": {
        "dataset": "Cifar10",
        "method": "sh",
        "log_dir": "./logs/Cifar10_Features/{code_length}bits_seed{seed}/images",
        "code_length": [8, 16, 24, 32, 48, 64, 96, 128],
        "image_size": 224,
        "augmentation": {"interpolation": "bicubic"},
        "precision": "fp32",
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
            "weights": "default",
        },
    },
    "engine": "shallow",
    "hasher": {"def_file": "./models/spectral_hashing.py", "standardize": True},
}
