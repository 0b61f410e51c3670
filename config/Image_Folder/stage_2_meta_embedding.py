"""One's own images, stage 2: the meta-embedding over a memory, beside stage 1's weights.

Nothing is trained, as config/Cifar100_LT/stage_2_meta_embedding.py explains. Attention is not
adjusted for class sizes: common classes lose by it (docs/long_tail_study.md, section 3).
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
            "params": {"attention": "cosine", "temperature": 14.0, "selector": 1.0},
            "weights": weights,
        },
    },
    "memory": {"centroids": True, "dpp_samples": 0},
}
