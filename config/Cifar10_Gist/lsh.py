"""CIFAR-10, GIST, locality-sensitive hashing: random projections."""

from sh import config as sh

training_opt = sh["training_opt"]

config = {
    **sh,
    "training_opt": {
        **training_opt,
        "method": "lsh",
        "log_dir": training_opt["log_dir"].replace("/sh", "/lsh"),
    },
    "hasher": {"def_file": "./models/lsh.py", "standardize": True},
}
