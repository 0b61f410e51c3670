"""Retrieval evaluation: on validation queries while training, on the queries at the end."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from engine.code_lengths import Validation, run_of_length
from engine.coding import Encoded, Encoder, network_encoders
from engine.open_set import evaluate_open_set
from engine.report import write_results
from engine.run import Run
from retrieval.codes import Codes, make_codes, save_codes
from retrieval.metrics import evaluate, mean_average_precision
from retrieval.scored import score_all
from utils.atomic_file import write_json
from utils.def_file import in_project
from utils.distributed import is_main
from utils.environment import environment, peak_gpu_memory
from utils.errors import UserError

RADIUS = 2  # of precision within a Hamming radius
INDEX_ORDER_BITS = 12  # at most so many bits: ties then decide the score, by the order of the data
logger = logging.getLogger("long_tail_hashing")


def validate(run: Run, encoders: Mapping[int, Encoder] | None = None) -> Validation:
    """Score the validation queries against the database without them, by all processes.

    Args:
        encoders: give the codes of images by index, by code length; by default the networks do.
    """
    split, labels = run.dataset.split, run.dataset.source.labels
    database = np.setdiff1d(split.database, split.validation)
    indices, count = np.concatenate([split.validation, database]), len(split.validation)
    found = {}
    for length, encoder in (encoders or network_encoders(run)).items():
        codes = encoder(run, indices).codes
        found[length] = evaluate(
            codes[:count],
            codes[count:],
            labels[split.validation],
            labels[database],
            code_length=length,
            top_k=(),
            train_class_counts=split.class_counts,
            device=run.device,
            shared=True,
        )
    return Validation(found)


def check_validation_images(run: Run) -> None:
    """Raise a UserError unless there are images to choose the checkpoint by."""
    if not len(run.dataset.split.validation):
        raise UserError(
            f"{run.dataset.source.name} leaves no validation images to choose a checkpoint by: "
            "at most a fifth of a class is held out; add images, or a subset val"
        )


def test(run: Run, encoders: Mapping[int, Encoder], open_set: bool = False) -> dict[str, Any]:
    """Code queries and database, score them, and leave figures and report in the run's folder.

    A run of several code lengths has a folder of them a length, and the figures of all at the top.
    Several processes share the coding and the scoring; rank 0 writes.

    Args:
        encoders: give the codes of images by index, by code length.
        open_set: also ask how well queries of unknown classes are rejected.

    Returns:
        what metrics.json holds.

    Raises:
        UserError: if open-set queries are asked for and there are none.
    """
    split = run.dataset.split
    with run.timed("encode"):
        query = {length: encoder(run, split.query) for length, encoder in encoders.items()}
        database = {length: encoder(run, split.database) for length, encoder in encoders.items()}
    found = []
    for length, encoder in encoders.items():
        with run_of_length(run, length) as one:
            found.append(_test_length(one, encoder, query[length], database[length], open_set))
    if len(found) == 1:
        return found[0]
    metrics = {"code_lengths": list(encoders), "runs": found}
    if is_main():
        write_json(run.log_dir / "metrics.json", metrics)
    return metrics


def _test_length(
    run: Run, encoder: Encoder, query: Encoded, database: Encoded, open_set: bool
) -> dict[str, Any]:
    """Score the codes of one length; `run` is of that length."""
    options, k = run.config.training_opt, run.dataset.split.headline_k
    codes = make_run_codes(run, query, database)
    if is_main():
        save_codes(run.log_dir / "codes.npz", **vars(codes))
    with run.timed("evaluate"):
        top_k = tuple(sorted({*options.top_k, *([k] if k else [])}))
        named = {options.method: codes}
        scored = score_all(named, None, top_k, "expected", RADIUS, run.device, shared=True)
    metrics = {**scored[options.method].to_dict(), **_identity(run)}
    metrics["headline"] = metrics["map_at_k"][k] if k else metrics["map"]
    metrics |= _index_order(run, codes) | classification(query, codes.query_labels)
    if open_set:
        metrics["open_set"] = evaluate_open_set(run, encoder, query, database)
    metrics["seconds"] = {name: round(value, 3) for name, value in run.seconds.items()}
    metrics["images_per_second"] = round(run.images_per_second, 1)
    metrics["peak_gpu_memory_gib"] = peak_gpu_memory(run.device)
    if is_main():
        write_results(run, scored)
        write_json(run.log_dir / "metrics.json", metrics)
    _log(run, metrics)
    return metrics


def _index_order(run: Run, codes: Codes) -> dict[str, float]:
    """MAP with ties broken by the database's order, as older code reports it, for few bits."""
    if codes.code_length > INDEX_ORDER_BITS:
        return {}
    sides = (codes.query_codes, codes.database_codes, codes.query_labels, codes.database_labels)
    score = mean_average_precision(
        *sides, ties="index", code_length=codes.code_length, device=run.device, shared=True
    )
    return {"map_index_order": score}


def classification(encoded: Encoded, labels: NDArray[Any]) -> dict[str, float]:
    """Accuracy and macro F-measure of the classifier, for single-label data."""
    if encoded.logits is None or labels.ndim == 2:
        return {}
    predicted = encoded.logits.argmax(1)
    return {
        "accuracy": float((predicted == labels).mean()),
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
    }


def _identity(run: Run) -> dict[str, Any]:
    """What was trained on what."""
    options, dataset = run.config.training_opt, run.dataset
    return {
        "config": in_project(run.config.path),
        "method": options.method,
        "dataset": options.dataset,
        "protocol": dataset.split.protocol,
        "metric": dataset.split.metric,
        "imbalance_factor": options.imbalance_factor,
        "code_length": options.code_length,
        "seed": options.seed,
        "counts": {
            role: len(getattr(dataset.split, role))
            for role in ("train", "validation", "query", "database")
        },
        "split_digest": dataset.digest,
        "recipe": run.recipe,
        "checkpoint": run.checkpoint,
        "environment": environment(run.device),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def make_run_codes(run: Run, query: Encoded, database: Encoded) -> Codes:
    """The codes of a run of one length with all that is needed to score them elsewhere."""
    split, source = run.dataset.split, run.dataset.source
    (code_length,) = run.config.training_opt.code_lengths
    names = np.array(source.image_names)
    return make_codes(
        query_codes=query.codes,
        database_codes=database.codes,
        code_length=code_length,
        query_labels=source.labels[split.query],
        database_labels=source.labels[split.database],
        query_names=names[split.query],
        database_names=names[split.database],
        class_names=np.array(source.class_names),
        train_class_counts=split.class_counts,
        protocol=split.protocol,
        dataset=run.config.training_opt.dataset,
    )


def _log(run: Run, metrics: dict[str, Any]) -> None:
    groups = {f"map_{name}": value for name, value in metrics["groups"].items()}
    headline = metrics["metric"].lower().replace("@all", "").replace("@", "_at_")
    shown = {headline: metrics["headline"], "map": metrics["map"], **groups}
    optional = ("map_index_order", "accuracy", "macro_f1")
    shown |= {key: metrics[key] for key in optional if key in metrics}
    shown |= {f"open_{k}": v for k, v in metrics.get("open_set", {}).items()}
    figures = ", ".join(f"{name} {value:.4f}" for name, value in shown.items() if value is not None)
    logger.info(
        "test, %d bits, %s, ties %s, protocol %s: %s",
        metrics["code_length"],
        metrics["metric"],
        metrics["ties"],
        metrics["protocol"],
        figures,
    )
    if run.writer:
        for name, value in shown.items():
            if value is not None:
                run.writer.add_scalar(f"test/{name}", value)
