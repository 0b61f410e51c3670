"""CIFAR-10, MAH, flat: heads of three extremely short codes side by side, learned together.

--opts 'training_opt.code_length=[6, 10, 12]' asks for other lengths, the shortest first.
"""

from adsh import config as adsh

training_opt = adsh["training_opt"]

config = {
    **adsh,
    "training_opt": {
        **training_opt,
        "method": "mah_flat",
        "log_dir": training_opt["log_dir"].replace("adsh", "mah_flat"),
        "code_length": [4, 8, 16],
    },
    "criterions": {
        "pairs": {
            **adsh["criterions"]["pairs"],
            "weight": [4.0, 2.0, 1.0],  # the shortest code counts most
        },
    },
    "alternate": {
        **adsh["alternate"],
        "start": "classes",  # from an untrained network's 4 bits several classes share a code
    },
}
