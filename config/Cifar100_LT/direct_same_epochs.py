"""CIFAR-100, long-tailed, the direct feature alone for as many epochs as both stages together."""

from stage_1 import config as stage_1
from stage_2_meta_embedding import config as stage_2

training_opt = stage_1["training_opt"]

config = {
    **stage_1,
    "training_opt": {
        **training_opt,
        "method": "direct_same_epochs",
        "log_dir": training_opt["log_dir"].replace("stage_1", "direct_same_epochs"),
        "num_epochs": training_opt["num_epochs"] + stage_2["training_opt"]["num_epochs"],
    },
}
