"""Evaluations that are saved in a run folder, where `compare` reads them.

RUN/eval/digits-test-1a2b3c4d.json    one file for each checkpoint, split and setting that was evaluated
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from vaezoo.core.atomic import write_file
from vaezoo.core.json_io import json_bytes, read_json
from vaezoo.errors import InputError, VaezooError, VaezooWarning, format_error
from vaezoo.evaluation.evaluate import SCHEMA, Evaluation

EVALUATIONS = "eval"


def save_evaluation(folder: str | os.PathLike[str], evaluation: Evaluation) -> Path:
    """Saves an evaluation in a run folder and returns the file.

    Metrics of the same checkpoint, examples and settings go to the same file. A new value replaces the old one.

    Raises:
        StorageError: If the file cannot be written. The earlier one is then unchanged.
    """
    record = json.loads(json.dumps(evaluation.as_dict()))
    identity = {key: value for key, value in record.items() if key != "metrics"}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    file = Path(folder) / EVALUATIONS / f"{evaluation.data}-{evaluation.split}-{digest}.json"
    metrics = {metric["name"]: metric for metric in record["metrics"]}
    if file.exists():
        metrics = {metric["name"]: metric for metric in metrics_of(read_json(file), file)} | metrics
    write_file(file, json_bytes({**record, "metrics": list(metrics.values())}))
    return file


def read_evaluations(folder: Path) -> list[dict[str, object]]:
    """Returns the evaluations that a run folder holds, in the order of their names.

    Raises:
        InputError: If one is damaged.
    """
    records = []
    for file in sorted((folder / EVALUATIONS).glob("*.json")):
        record = read_json(file)
        if record.get("schema") != SCHEMA:
            continue  # of another version
        metrics_of(record, file)
        records.append(record)
    return records


def metrics_of(record: Mapping[str, object], file: Path) -> list[dict[str, object]]:
    """Returns the metrics of a saved evaluation. Raises InputError, which names the file, if they are damaged."""
    metrics = record.get("metrics")
    if not isinstance(metrics, list) or not isinstance(record.get("checkpoint"), dict):
        raise InputError(f"{file} is damaged", "delete it")
    if not all(isinstance(metric, dict) and isinstance(metric.get("name"), str) for metric in metrics):
        raise InputError(f"{file} is damaged: metrics", "delete it")
    return list(metrics)


def try_to_save(folder: Path, evaluation: Evaluation) -> Path | None:
    """Saves an evaluation, with a warning instead of an error: its figures are shown anyway."""
    try:
        return save_evaluation(folder, evaluation)
    except VaezooError as e:
        warnings.warn(f"the evaluation is not saved: {format_error(e)}", VaezooWarning, stacklevel=2)
        return None
