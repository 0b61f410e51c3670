"""Digits, long-tailed, iterative quantisation: rotated principal components of the pixels."""

from pca_sign import config as pca_sign

training_opt = pca_sign["training_opt"]

config = {
    **pca_sign,
    "training_opt": {
        **training_opt,
        "method": "itq",
        "log_dir": training_opt["log_dir"].replace("pca_sign", "itq"),
    },
    "hasher": {"def_file": "./models/itq.py"},
}
