"""CIFAR-100, long-tailed, LTHNet_sq: the published recipe with the square loss of its ablation."""

from lthnet_published import config as lthnet

training_opt = lthnet["training_opt"]

config = {
    **lthnet,
    "training_opt": {
        **training_opt,
        "method": "lthnet_sq",
        "log_dir": training_opt["log_dir"] + "_sq",
    },
    "criterions": {
        "classification": {"def_file": "./loss/square.py", "loss_params": {"beta": 0.99}},
    },
}
