"""Digits, long-tailed, locality-sensitive hashing: random projections of the pixels."""

from pca_sign import config as pca_sign

training_opt = pca_sign["training_opt"]

config = {
    **pca_sign,
    "training_opt": {
        **training_opt,
        "method": "lsh",
        "log_dir": training_opt["log_dir"].replace("pca_sign", "lsh"),
    },
    "hasher": {"def_file": "./models/lsh.py"},
}
