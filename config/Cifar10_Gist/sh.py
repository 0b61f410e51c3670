"""CIFAR-10, GIST, spectral hashing: box eigenfunctions of the components."""

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
        "params": {"file": "cifar10_gist.npz"},  # written as images.py says
        "protocol": images["data"]["protocol"],
    },
    "networks": {},
}
