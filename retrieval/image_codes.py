"""Codes of any images, without labels: the file that `python -m engine.encode` writes.

Given labels, two of them make the `Codes` that are scored:
`make_codes(query_codes=a.codes, database_codes=b.codes, code_length=a.code_length,
query_labels=..., database_labels=...)`.
"""

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.codes import as_tensor, check_packed
from utils.atomic_file import atomic_path
from utils.errors import UserError

BIT_ORDER = "little"  # bit i of a code is bit i % 8 of byte i // 8, as numpy.packbits calls it


@dataclass(frozen=True)
class ImageCodes:
    """Codes and what they are codes of.

    Attributes:
        codes: packed uint8 (n, ceil(code_length / 8)), in the bit order of `retrieval.codes`.
        names: (n,) the images' names, mostly paths from the folder that was coded.
        sizes, mtimes_ns: (n,) int64, bytes and time of change of the files, in ns: a file with
            another size or time has another code.
        code_length: bits of a code.
        model_digest: names the model that made the codes; only codes of one model compare.
        made_with: what else decides a code: device, precision and so on.
    """

    codes: NDArray[np.uint8]
    names: NDArray[np.str_]
    sizes: NDArray[np.int64]
    mtimes_ns: NDArray[np.int64]
    code_length: int
    model_digest: str
    made_with: dict[str, Any]

    def __post_init__(self) -> None:
        check_packed(as_tensor(self.codes), self.code_length)
        for name in ("names", "sizes", "mtimes_ns"):
            if len(getattr(self, name)) != len(self.codes):
                count = len(getattr(self, name))
                raise UserError(f"{name} has {count} entries for {len(self.codes)} codes")

    def __len__(self) -> int:
        return len(self.codes)


def save_image_codes(path: str | os.PathLike[str], codes: ImageCodes) -> None:
    """Write the codes as a compressed NumPy archive without pickles, whole or not at all."""
    stored = {field.name: getattr(codes, field.name) for field in fields(ImageCodes)}
    stored |= {"made_with": json.dumps(codes.made_with), "bit_order": BIT_ORDER}
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **stored)


def load_image_codes(path: str | os.PathLike[str]) -> ImageCodes:
    """Read what `save_image_codes` wrote.

    Raises:
        UserError: the file is missing or is no such archive.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            values = {field.name: archive[field.name] for field in fields(ImageCodes)}
            order = str(archive["bit_order"])
        values["made_with"] = json.loads(str(values["made_with"]))
        values["code_length"] = int(values["code_length"])
        values["model_digest"] = str(values["model_digest"])
        if order != BIT_ORDER:
            raise ValueError(f"its bit order is {order!r}, expected {BIT_ORDER!r}")
        return ImageCodes(**values)
    except FileNotFoundError:
        raise UserError(f"{Path(path)}: no such file; python -m engine.encode writes one") from None
    except Exception as error:  # numpy and zipfile raise many kinds for a broken archive
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{Path(path)}: no codes of images as python -m engine.encode writes them ({reason})"
        ) from error
