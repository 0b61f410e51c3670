"""NUS-WIDE, EfficientNet-Lite0, spectral hashing: box eigenfunctions of the components."""

from images import config as images

training_opt = images["training_opt"]

config = {
    **images,
    "training_opt": {
        **training_opt,
        "log_dir": training_opt["log_dir"].replace("/images", "/sh"),
    },
    "data": {
        "def_file": "./data/features.py",
        "params": {"file": "nus_wide_efficientnet_lite0.npz"},  # written as images.py says
        "protocol": images["data"]["protocol"],
        "on_leak": images["data"]["on_leak"],
    },
    "networks": {},
}
