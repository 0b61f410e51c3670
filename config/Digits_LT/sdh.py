"""Digits, long-tailed, supervised discrete hashing: a kernel machine on the pixels."""

from pca_sign import config as pca_sign

training_opt = pca_sign["training_opt"]

config = {
    **pca_sign,
    "training_opt": {
        **training_opt,
        "method": "sdh",
        "log_dir": training_opt["log_dir"].replace("pca_sign", "sdh"),
    },
    "hasher": {"def_file": "./models/sdh.py"},
}
