"""CIFAR-10, GIST, PCA hashing: signs of principal components."""

from sh import config as sh

training_opt = sh["training_opt"]

config = {
    **sh,
    "training_opt": {
        **training_opt,
        "method": "pcah",
        "log_dir": training_opt["log_dir"].replace("/sh", "/pcah"),
    },
    "hasher": {"def_file": "./models/pca_hashing.py", "standardize": True},
}
