"""ImageNet100, EfficientNet-Lite0, supervised discrete hashing: a kernel machine."""

from sh import config as sh

training_opt = sh["training_opt"]

config = {
    **sh,
    "training_opt": {
        **training_opt,
        "method": "sdh",
        "log_dir": training_opt["log_dir"].replace("/sh", "/sdh"),
    },
    "hasher": {"def_file": "./models/sdh.py", "standardize": True},
}
