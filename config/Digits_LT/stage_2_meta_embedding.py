"""Digits, long-tailed, stage 2: the meta-embedding over a memory, from stage 1's weights."""

from stage_1 import config as stage_1

training_opt = stage_1["training_opt"]
weights = training_opt["log_dir"] + "/final_model_checkpoint.pth"

config = {
    **stage_1,
    "training_opt": {
        **training_opt,
        "method": "ours",
        "log_dir": training_opt["log_dir"].replace("stage_1", "stage_2_meta_embedding"),
        "num_epochs": 20,
        "optimizer": {"name": "AdamW", "params": {"lr": 3e-4, "weight_decay": 0.05}},
    },
    "networks": {
        "feat_model": {
            **stage_1["networks"]["feat_model"],
            "optim_params": {"lr": 1e-4},
            "weights": weights,
        },
        "hash_head": {
            "def_file": "./models/meta_embedding_head.py",
            "weights": weights,
            "fresh": ["hallucinator", "selector"],  # what stage 1 does not have
        },
    },
    "memory": {"centroids": True, "dpp_samples": 3},
}
