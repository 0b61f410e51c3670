"""A source's images as files, for commands that read files."""

from pathlib import Path

import numpy as np
from PIL import Image

from data.source import Source
from retrieval.codes import Codes
from retrieval.image_codes import ImageCodes


def write_images(source: Source, folder: Path, every: int = 1) -> None:
    """Write each image of a source in memory, or every second and so on, as `folder`/name.png."""
    pairs = list(zip(source.image_names, source.arrays, strict=True))
    for name, pixels in pairs[::every]:
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, compress_level=0)


def by_name(codes: Codes | ImageCodes) -> dict[str, bytes]:
    """Each image's code, by its name without .png."""
    if isinstance(codes, ImageCodes):
        pairs = zip(codes.names.tolist(), codes.codes, strict=True)
    else:
        names = np.concatenate([codes.query_names, codes.database_names]).tolist()
        pairs = zip(names, np.concatenate([codes.query_codes, codes.database_codes]), strict=True)
    return {name.removesuffix(".png"): code.tobytes() for name, code in pairs}
