"""ImageNet100, EfficientNet-Lite0, ITQ: principal components, rotated towards their signs."""

from sh import config as sh

training_opt = sh["training_opt"]

config = {
    **sh,
    "training_opt": {
        **training_opt,
        "method": "itq",
        "log_dir": training_opt["log_dir"].replace("/sh", "/itq"),
    },
    "hasher": {"def_file": "./models/itq.py", "standardize": True},
}
