"""ImageNet100, EfficientNet-Lite0: spectral hashing on features of the run; siblings read a file.

python -m engine.features --config config/ImageNet100_Features/images.py \
    --out data/imagenet100_efficientnet_lite0.npz
"""

config = {
    "training_opt": {
        "dataset": "ImageNet100",
        "method": "sh",
        "log_dir": "./logs/ImageNet100_Features/{code_length}bits_seed{seed}/images",
        "code_length": [8, 16, 24, 32, 48, 64, 96, 128],
        "image_size": 224,
        "precision": "fp32",
        "num_workers": 16,
        "seed": 0,
    },
    "data": {
        "def_file": "./data/image_folder.py",
        "params": {"folder": "ImageNet100"},  # train/<class>/*, test/<class>/*
        "protocol": "imagenet100",
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
