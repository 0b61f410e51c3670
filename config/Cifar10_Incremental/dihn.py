"""CIFAR-10, DIHN: the other 3 classes arrive; the codes of the first 7 stay as they are.

For several arrivals in a row, list data.train_classes so far and name the last checkpoint:
--opts data.train_classes=8 alternate.base=PATH training_opt.log_dir=FOLDER
"""

from adsh_base import config as adsh_base

training_opt = adsh_base["training_opt"]

config = {
    **adsh_base,
    "training_opt": {
        **training_opt,
        "method": "dihn",
        "log_dir": training_opt["log_dir"].replace("adsh_base", "dihn"),
        "optimizer": {"name": "AdamW", "params": {"lr": 5e-4, "weight_decay": 0.05}},
    },
    "data": {**adsh_base["data"], "train_classes": None},
    "networks": {  # the base's weights
        "feat_model": {
            **adsh_base["networks"]["feat_model"],
            "optim_params": {"lr": 1e-4},
            "weights": None,
        },
        "hash_head": adsh_base["networks"]["hash_head"],
    },
    "criterions": {
        "pairs": {
            "def_file": "./loss/dihn.py",
            "loss_params": {"gamma": 200.0, "mu": 50.0},  # mu: balance of the bits
        },
    },
    "alternate": {
        **adsh_base["alternate"],
        "base": training_opt["log_dir"] + "/final_model_checkpoint.pth",
    },
}
