"""CIFAR-100, long-tailed, LTHNet by its published recipe with a memory of centroids alone."""

from lthnet_published import config as lthnet

training_opt = lthnet["training_opt"]

config = {
    **lthnet,
    "training_opt": {
        **training_opt,
        "method": "lthnet_k0",
        "log_dir": training_opt["log_dir"] + "_k0",
    },
    "memory": {"centroids": True, "dpp_samples": 0},
}
