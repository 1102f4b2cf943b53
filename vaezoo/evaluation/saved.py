"""Evaluations that are saved in a run folder, where `compare` reads them.

RUN/eval/digits-test-1a2b3c4d.json    one file for each checkpoint, split and setting that was evaluated
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path

from vaezoo.core.atomic import write_file
from vaezoo.core.json_io import json_bytes, read_json
from vaezoo.errors import VaezooError, VaezooWarning, format_error
from vaezoo.evaluation.evaluate import Evaluation
from vaezoo.training.run_files import EVALUATIONS, metrics_of


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


def try_to_save(folder: Path, evaluation: Evaluation) -> Path | None:
    """Saves an evaluation, with a warning instead of an error: its figures are shown anyway."""
    try:
        return save_evaluation(folder, evaluation)
    except VaezooError as e:
        warnings.warn(f"the evaluation is not saved: {format_error(e)}", VaezooWarning, stacklevel=2)
        return None
