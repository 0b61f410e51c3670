"""Feature files that hashing papers publish: `cifar10-gist.mat`, `*_alexnet.t`."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.faults import shown
from data.source import Source
from utils.errors import UserError
from utils.matlab_file import load_matlab

_MATLAB = {"train": ("traindata", "traingnd"), "test": ("testdata", "testgnd")}
_TENSORS = {
    subset: (f"{part}_features", f"{part}_targets")
    for subset, part in (("train", "train"), ("query", "query"), ("database", "retrieval"))
}


def read_matlab(path: Path) -> Source:
    """Return a MATLAB file's features: subsets 'train' and 'test'.

    It holds `traindata` (n, d), `traingnd` (n, 1), `testdata` and `testgnd`; labels are class
    numbers, whichever they start at, or (n, C) of 0 and 1.

    Raises:
        UserError: it cannot be read, lacks a variable, or their shapes do not fit.
    """
    names = [name for pair in _MATLAB.values() for name in pair]
    try:
        found = load_matlab(path, names)
    except NotImplementedError as error:
        raise UserError(f"{called(path)} is of MATLAB 7.3; save it with -v7") from error
    except Exception as error:  # of a broken file: SciPy's own, zlib's and others
        raise _broken(path, error) from error
    return _joined(path, found, _MATLAB)


def read_tensors(path: Path) -> Source:
    """Return a saved dict of tensors: subsets 'train', 'query' and 'database'.

    It holds `train_features` (n, d), `train_targets` (n, C) of 0 and 1, and the same of `query_`
    and `retrieval_`. An image of two subsets stands there twice.

    Raises:
        UserError: it cannot be read, holds anything but tensors, lacks one, or they do not fit.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{called(path)} holds more than tensors and could run code, so it is not"
            " loaded; save a plain dict of tensors"
        ) from error
    except Exception as error:  # what the unpickler raises on a foreign file has no common type
        raise _broken(path, error) from error
    if not isinstance(found, dict):
        raise UserError(f"{called(path)} holds a {type(found).__name__}, not a dict")
    names = [name for pair in _TENSORS.values() for name in pair if name in found]
    return _joined(path, {name: _table(path, name, found[name]) for name in names}, _TENSORS)


def _table(path: Path, name: str, value: Any) -> np.ndarray:
    """A tensor as an array; parameters and short floats, which NumPy does not take, too."""
    try:
        tensor = torch.as_tensor(value).detach()
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{called(path)}: {name} is no plain tensor; save it dense") from error


PUBLISHED: dict[str, Callable[[Path], Source]] = {
    ".mat": read_matlab,
    ".t": read_tensors,
    ".pt": read_tensors,
}


def _joined(
    path: Path, arrays: Mapping[str, np.ndarray], subsets: Mapping[str, tuple[str, str]]
) -> Source:
    """One source of all subsets, their rows one after another, images named '<subset>/<row>'."""
    missing = [name for pair in subsets.values() for name in pair if name not in arrays]
    if missing:
        raise UserError(f"{called(path)} lacks {', '.join(missing)}")
    features, targets, ranges, names, start = [], [], {}, [], 0
    for subset, (data, truth) in subsets.items():
        rows, labels = _pair(path, arrays, data, truth)
        with np.errstate(over="ignore"):  # found as infinite where features are opened
            features.append(rows.astype(np.float32, copy=False))
        targets.append(labels)
        ranges[subset] = np.arange(start, start + len(rows))
        names += [f"{subset}/{row:06d}" for row in range(len(rows))]
        start += len(rows)
    if len({each.shape[1] for each in features}) > 1 or len({t.shape[1:] for t in targets}) > 1:
        shapes = ", ".join(f"{d} {arrays[d].shape}" for pair in subsets.values() for d in pair)
        raise UserError(f"{called(path)}: widths differ between subsets: {shapes}")
    labels, class_names = _labels(path, np.concatenate(targets))
    return Source(
        name=path.stem,
        class_names=class_names,
        image_names=names,
        labels=labels,
        subsets=ranges,
        features=np.concatenate(features),
        provenance={"file": path.name},
    )


def _pair(
    path: Path, arrays: Mapping[str, np.ndarray], data: str, truth: str
) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, d) and labels (n,) or (n, C) of one subset."""
    features, labels = arrays[data], arrays[truth]
    if labels.ndim == 2 and 1 in labels.shape:
        labels = labels.ravel()
    numeric = all(each.dtype.kind in "biuf" for each in (features, labels))
    if numeric and not np.isfinite(labels).all():
        raise UserError(f"{called(path)}: {truth} holds NaN or infinite labels")
    fits = features.ndim == 2 and labels.ndim in (1, 2) and len(features) == len(labels) > 0
    if not numeric or not fits:
        raise UserError(
            f"{called(path)}: {data} {features.shape} and {truth} {arrays[truth].shape} do not"
            " fit; expected numbers (images, dimensions) and (images,) or (images, classes)"
        )
    return features, labels


def _labels(path: Path, targets: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Class indices (n,), or multi-hot (n, C) where an image has several or none; class names."""
    if targets.ndim == 1:
        classes, indices = np.unique(targets, return_inverse=True)
        return indices.astype(np.int64), [f"{each:g}" for each in classes]
    if not np.isin(targets, (0, 1)).all():
        raise UserError(f"{called(path)}: targets (images, classes) must be 0 and 1")
    class_names = [str(c) for c in range(targets.shape[1])]
    if (targets.sum(1) == 1).all():
        return targets.argmax(1).astype(np.int64), class_names
    return targets.astype(np.uint8), class_names


def called(path: Path) -> str:
    """Return the words for a feature file in messages."""
    return f"feature file {shown(path)}"


def _broken(path: Path, error: Any) -> UserError:
    return UserError(f"{called(path)} cannot be read ({' '.join(str(error).split())})")
