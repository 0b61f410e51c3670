"""Digits, long-tailed, with two classes held out: their images are open-set queries."""

from stage_1 import config as stage_1

training_opt = stage_1["training_opt"]

config = {
    **stage_1,
    "training_opt": {
        **training_opt,
        "log_dir": training_opt["log_dir"].replace("stage_1", "open_set"),
    },
    "data": {**stage_1["data"], "open_classes": 2},  # drawn from the seed; names will do too
}
