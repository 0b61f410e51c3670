"""CIFAR-100, long-tailed, stage 2: the meta-embedding over a memory, beside stage 1's weights.

Nothing is trained: attention by cosine to the centroids of the backbone's features, whitened within
classes and adjusted for class sizes, does more for few-shot classes, and training on undoes part
of it (docs/long_tail_study.md).
"""

from stage_1 import config as stage_1

training_opt = stage_1["training_opt"]
weights = training_opt["log_dir"] + "/final_model_checkpoint.pth"

config = {
    **stage_1,
    "training_opt": {
        **training_opt,
        "method": "ours",
        "log_dir": training_opt["log_dir"].replace("stage_1", "stage_2_meta_embedding"),
        "num_epochs": 0,
    },
    "networks": {
        "feat_model": {**stage_1["networks"]["feat_model"], "weights": weights},
        "hash_head": {
            "def_file": "./models/meta_embedding_head.py",
            "params": {
                "attention": "cosine",
                "temperature": 20.0,
                "selector": 1.0,
                "adjustment": 0.6,
                "power": 0.5,
                "shrinkage": 2.0,
            },
            "weights": weights,
        },
    },
    "memory": {"centroids": True, "dpp_samples": 0},
}
