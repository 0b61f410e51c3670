"""CIFAR-100, long-tailed, LTHNet_sq by its published recipe with a memory of centroids alone."""

from lthnet_published_sq import config as lthnet_sq

training_opt = lthnet_sq["training_opt"]

config = {
    **lthnet_sq,
    "training_opt": {
        **training_opt,
        "method": "lthnet_sq_k0",
        "log_dir": training_opt["log_dir"] + "_k0",
    },
    "memory": {"centroids": True, "dpp_samples": 0},
}
