"""Each query's average precision of a run, small enough to keep where its codes are not.

With it other codes are tested against the run on the same queries (benchmarks/significance.py).
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compare import read_metrics
from retrieval.codes import Codes, load_codes
from retrieval.metrics import evaluate
from retrieval.significance import Scores
from utils.atomic_file import atomic_path
from utils.errors import UserError

ABOUT = ("dataset", "imbalance_factor", "code_length", "method", "seed", "recipe")
QUERIES = ("query_labels", "query_names")
SEARCHED = ("database_labels", "database_names", "train_class_counts", "code_length")
LENGTH = 16  # hexadecimal digits of a digest
STEPS = np.iinfo(np.uint16).max  # a precision is kept as so many 65,535ths


@dataclass(frozen=True)
class Precisions:
    """What a run's queries got.

    Attributes:
        name: the folder or file that it came from.
        values: (queries,) average precision over the whole database, expected over ties.
        digests: of the names QUERIES and SEARCHED; runs on the same queries have the same.
        about: the values that ABOUT names, from metrics.json; empty without one.
    """

    name: str
    values: Scores
    digests: dict[str, str]
    about: dict[str, Any]


def read_precisions(path: Path) -> Precisions:
    """Score the codes of a run's folder, or load what `keep_precisions` wrote.

    Raises:
        UserError: there are no codes, or the file is another.
    """
    return _load(path) if path.suffix == ".npz" else _of_run(path)


def keep_precisions(run: Precisions, folder: Path) -> Path:
    """Write a run's precisions in two bytes a query, exact to 8e-6, under a name of its own.

    Raises:
        UserError: nothing is known of the run, which then has no name.
    """
    if not run.about:
        raise UserError(f"{run.name} has no metrics.json to name it by; test the run first")
    about = run.about
    factor = about["imbalance_factor"]
    data = "all" if factor is None else f"if{factor:g}"
    cell = f"{data}_{about['code_length']}bits_seed{about['seed']}"
    name = re.sub(r"[^\w.-]", "_", f"{about['dataset']}_{cell}_{about['method']}")
    path = folder / f"{name}.npz"
    folder.mkdir(parents=True, exist_ok=True)
    said = json.dumps({"digests": run.digests, "about": about})
    values = np.round(run.values * STEPS).astype(np.uint16)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, precisions=values, said=np.array(said))
    return path


def _of_run(folder: Path) -> Precisions:
    codes = load_codes(folder / "codes.npz")
    known = (folder / "metrics.json").exists()
    metrics = read_metrics(folder) if known else {}
    digests = {name: _digest(getattr(codes, name)) for name in (*QUERIES, *SEARCHED)}
    about = {name: metrics.get(name) for name in ABOUT} if known else {}
    return Precisions(str(folder), average_precisions(codes), digests, about)


def average_precisions(codes: Codes) -> Scores:
    """Each query's average precision over the whole database, expected over ties."""
    found = evaluate(
        codes.query_codes,
        codes.database_codes,
        codes.query_labels,
        codes.database_labels,
        code_length=codes.code_length,
        top_k=(),
    )
    return found.ap_per_query


def _load(path: Path) -> Precisions:
    try:
        with np.load(path, allow_pickle=False) as file:
            said = json.loads(str(file["said"]))
            values = file["precisions"].astype(np.float64) / STEPS
        digests = {name: str(said["digests"][name]) for name in (*QUERIES, *SEARCHED)}
        about = {name: said["about"][name] for name in ABOUT}
        if values.ndim != 1:
            raise ValueError("expected a number a query")
        return Precisions(str(path), values, digests, about)
    except Exception as error:  # numpy and zipfile raise many kinds at damage
        raise UserError(
            f"{path} holds no precisions of a run; give a run's folder, or a file that "
            "benchmarks.significance --keep wrote"
        ) from error


def _digest(values: Any) -> str:
    """Of an array's or number's values; '' for none."""
    if values is None:
        return ""
    array = np.asarray(values)
    plain = array.astype(np.int64) if array.dtype.kind in "iub" else array.astype(np.str_)
    content = json.dumps(plain.tolist(), ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:LENGTH]
