"""Features in place of pixels: this project's feature file, and files that others publish."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data.published_features import PUBLISHED, called
from data.source import Source, find_root, join_subsets
from utils.atomic_file import atomic_path
from utils.errors import UserError

SUFFIX = ".npz"
Stored = Literal["float16", "float32"]
_SUBSET = "subset_"  # before a subset's name
_ARRAYS = ("features", "labels", "image_names", "class_names", "name", "provenance")


def create_source(
    data_root: str | Path | None,
    file: str,
    name: str | None = None,
    class_names: Sequence[str] | None = None,
    join: bool = False,
) -> Source:
    """Return the images of the feature file `data_root`/`file`: `features` (n, d) float32.

    `.npz` is what `write_features` writes; `.mat`, `.t` and `.pt` are what
    `data.published_features` reads.

    name: the dataset's name; by default the file's.
    class_names: names in place of those of the file, in the order of the class numbering.
    join: join all subsets but 'open' into one, 'all', to draw queries from.

    Raises:
        UserError: no such file, or it does not hold what its format says.
    """
    path = find_root(data_root, "", f"the feature file {file} in it") / file
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where it may not look
        raise UserError(
            f"{called(path)} does not exist; make it with python -m engine.features, or set"
            " training_opt.data_root or data.params.file"
        )
    readers = {SUFFIX: read_features, **PUBLISHED}
    if path.suffix not in readers:
        raise UserError(f"{called(path)}: expected a name that ends in {', '.join(readers)}")
    source = readers[path.suffix](path)
    if class_names is not None:
        if len(class_names) != source.num_classes:
            raise UserError(
                f"class_names has {len(class_names)} names, but {path} has {source.num_classes}"
                " classes; give one a class"
            )
        source = replace(source, class_names=[str(each) for each in class_names])
    source = replace(source, name=name or source.name)
    return join_subsets(source) if join else source


def write_features(
    path: str | Path,
    source: Source,
    features: np.ndarray,
    provenance: Mapping[str, Any],
    dtype: Stored = "float16",
) -> None:
    """Write the features (n, d) of every image of a source, whole or not at all.

    The file is NumPy's .npz with the arrays `features` (n, d), `labels` (n,) or (n, C),
    `image_names` (n,), `class_names` (C,), `subset_<name>` (indices) for each subset, and the
    texts `name` and `provenance` (JSON: what made the features).

    Raises:
        UserError: the name does not end in .npz, or features are not finite numbers of that type.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise UserError(f"{called(path)}: expected a name that ends in {SUFFIX}")
    if features.shape[:1] != (len(source),) or features.ndim != 2:
        raise ValueError(f"features of shape {features.shape} for {len(source)} images")
    with np.errstate(over="ignore"):
        stored = features.astype(dtype, copy=False)
    if not np.isfinite(stored).all():
        raise UserError(
            f"{called(path)}: features are NaN, infinite or too large for {dtype}; check the"
            " network, or store them as float32"
        )
    arrays: dict[str, Any] = {
        "features": stored,
        "labels": source.labels,
        "image_names": source.image_names,
        "class_names": source.class_names,
        "name": source.name,
        "provenance": json.dumps(provenance),
    }
    arrays |= {f"{_SUBSET}{name}": indices for name, indices in source.subsets.items()}
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)


def read_features(path: Path) -> Source:
    """Return the source that `write_features` wrote.

    Raises:
        UserError: the file is broken, or is another kind of .npz.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in _ARRAYS if key not in file]
            if missing:
                raise UserError(
                    f"{called(path)} lacks {', '.join(missing)}; make it with"
                    " python -m engine.features"
                )
            source = Source(
                name=str(file["name"]),
                class_names=file["class_names"].tolist(),
                image_names=file["image_names"].tolist(),
                labels=file["labels"],
                subsets={
                    key.removeprefix(_SUBSET): file[key] for key in file if key.startswith(_SUBSET)
                },
                features=_float32(file["features"]),
                provenance=json.loads(str(file["provenance"])),
            )
    except UserError:
        raise
    except Exception as error:  # of a broken file: NumPy's own, zlib's, zipfile's and others
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{called(path)} is broken ({reason}); make it anew") from error
    _check_arrays(path, source)
    return source


def _float32(features: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what becomes infinite is found where features are opened
        return features.astype(np.float32)


def _check_arrays(path: Path, source: Source) -> None:
    """Raise a UserError unless the arrays fit each other; some files are made by hand."""
    features, labels, classes = source.features, source.labels, source.num_classes
    assert features is not None
    for what, names in (("image_names", source.image_names), ("class_names", source.class_names)):
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise UserError(f"{called(path)}: {what} are not texts, each one once")
    if features.ndim != 2 or not features.size:
        raise UserError(f"{called(path)}: features {features.shape}, expected (n, d)")
    if labels.ndim > 1:
        fit = labels.shape[1:] == (classes,) and bool(np.isin(labels, (0, 1)).all())
    else:
        fit = labels.dtype.kind in "iu" and bool(((labels >= -1) & (labels < classes)).all())
    if not fit:
        raise UserError(
            f"{called(path)}: labels do not fit {classes} classes; expected whole numbers"
            " from -1 below that, or (images, classes) of 0 and 1"
        )
    for name, indices in source.subsets.items():
        whole = indices.ndim == 1 and indices.dtype.kind in "iu"
        if not whole or not ((indices >= 0) & (indices < len(source))).all():
            raise UserError(f"{called(path)}: subset {name} is not of indices below {len(source)}")
    if not {"all", "train"} & source.subsets.keys():
        raise UserError(f"{called(path)} has no subset 'all' or 'train'; add subset_all")
