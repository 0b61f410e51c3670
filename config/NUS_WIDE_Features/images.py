"""NUS-WIDE, EfficientNet-Lite0: spectral hashing on features made in the run; siblings read a file.

python -m engine.features --config config/NUS_WIDE_Features/images.py \
    --out data/nus_wide_efficientnet_lite0.npz
"""

config = {
    "training_opt": {
        "dataset": "NUS_WIDE",
        "method": "sh",
        "log_dir": "./logs/NUS_WIDE_Features/{code_length}bits_seed{seed}/images",
        "code_length": [8, 16, 24, 32, 48, 64, 96, 128],
        "image_size": 224,
        "precision": "fp32",
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
            "weights": "default",
        },
    },
    "engine": "shallow",
    "hasher": {"def_file": "./models/spectral_hashing.py", "standardize": True},
}
