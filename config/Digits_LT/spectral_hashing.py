"""Digits, long-tailed, spectral hashing: eigenfunctions along the pixels' principal components."""

from pca_sign import config as pca_sign

training_opt = pca_sign["training_opt"]

config = {
    **pca_sign,
    "training_opt": {
        **training_opt,
        "method": "sh",
        "log_dir": training_opt["log_dir"].replace("pca_sign", "spectral_hashing"),
    },
    "hasher": {"def_file": "./models/spectral_hashing.py"},
}
