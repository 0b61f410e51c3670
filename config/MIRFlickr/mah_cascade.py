"""MIRFlickr-25K, MAH, cascade: each shorter code is a linear map of the next longer one's layer."""

from mah_flat import config as mah_flat

training_opt = mah_flat["training_opt"]

config = {
    **mah_flat,
    "training_opt": {
        **training_opt,
        "method": "mah_cascade",
        "log_dir": training_opt["log_dir"].replace("mah_flat", "mah_cascade"),
    },
    "networks": {
        **mah_flat["networks"],
        "hash_head": {"def_file": "./models/cascade_head.py"},
    },
}
