"""The files of a run folder besides its checkpoints and logs: how they are read, and what identifies the data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, cast, get_args

import torch
from safetensors.torch import save as save_tensors

from vaezoo.core.atomic import read_file
from vaezoo.core.json_io import check_schema, read_json
from vaezoo.core.options import configure, construct
from vaezoo.data.base import Batch, Dataset, DataSource, Split, TensorSplit
from vaezoo.data.spec import DataSpec
from vaezoo.errors import InputError, VaezooError, format_error, safe_repr, with_hint
from vaezoo.objectives.fit_prior import Codes
from vaezoo.training.checkpoint import parse_metrics, unpack
from vaezoo.training.config import TrainConfig
from vaezoo.training.prior_fit import PriorFit
from vaezoo.vae import check_labels

SCHEMA = 3
EXAMPLES = "examples.safetensors"
RESULT = "result.json"
EVALUATIONS = "eval"  # the folder of what `vaezoo eval` measured
EVALUATION_SCHEMA = 2
EXAMPLE_COUNT = 64
MAX_EXAMPLES_BYTES = 1 << 30  # 64 of the largest images that vaezoo reads have 0.8 GB in float32


class TeacherRecord(NamedTuple):
    """The run whose latents a model learned.

    Attributes:
        path: Its folder.
        sha256: The hash of its weights.
    """

    path: str
    sha256: str


class RunRecord(NamedTuple):
    """The contents of run.json. For attributes that are not described here see Run.

    Attributes:
        world_size: Number of processes.
        device: Kind of device, such as "cpu" or "cuda".
        torch: Version of PyTorch.
        fingerprint: Identifies the data; see `fingerprint`.
        init_from: Whether the training started with the weights of another run.
        prior: The prior that was fitted after training, or None.
        imported: Where the weights come from if they were not trained here; see `Run`.
        first_imported: As in `Run`.
        teacher: The run whose latents were learned, or None.
    """

    model: str
    options: Mapping[str, object]
    data: DataSpec
    source: DataSource | None
    training: TrainConfig
    world_size: int
    device: str
    torch: str
    fingerprint: str
    weights_license: str | None
    init_from: bool
    prior: PriorFit | None
    imported: Mapping[str, object] | None
    first_imported: str
    teacher: TeacherRecord | None


def read_run_record(path: Path) -> RunRecord:
    """Reads a run folder's run.json.

    Raises:
        InputError: If the folder is not a run, or the file is damaged or of an earlier version.
    """
    file = path / "run.json"
    if not file.is_file():
        hint = "give a folder that 'vaezoo train' or 'vaezoo import' wrote, such as runs/..."
        raise InputError(f"{path} is not a run folder", hint)
    record = read_json(file)
    check_schema(file, record, SCHEMA)
    try:
        source, license_text = record["source"], record.get("weights_license")
        return RunRecord(
            model=_text(record["model"]),
            options=_mapping(record["options"]),
            data=_data(record),
            source=None if source is None else construct(DataSource, _mapping(source)),
            training=configure(TrainConfig(), _mapping(record["training"])),
            world_size=_integer(record["world_size"]),
            device=_text(record["device"]),
            torch=_text(_mapping(record["versions"])["torch"]),
            fingerprint=_text(record["fingerprint"]),
            weights_license=None if license_text is None else _text(license_text),
            init_from=record.get("init_from") is not None,
            prior=None if record.get("prior") is None else _prior_fit(_mapping(record["prior"])),
            imported=None if record.get("imported") is None else _imported(_mapping(record["imported"])),
            first_imported=_text(_mapping(record.get("init_from") or {}).get("imported", "")),
            teacher=None if record.get("teacher") is None else _teacher(_mapping(record["teacher"])),
        )
    except (KeyError, TypeError) as e:
        raise InputError(f"{file} is damaged: {format_error(e)}", "restore the file, or train again") from e
    except VaezooError as e:
        raise InputError(f"{file} is damaged: {e.message}", e.hint) from e


def _data(record: Mapping[str, object]) -> DataSpec:
    """Returns the data of a run. The hash of a tokenizer, if there is one, must be that of the record."""
    data = construct(DataSpec, _mapping(record["data"]))
    expected = record.get("tokenizer_sha256")
    if expected is not None and (not data.tokenizer or data.make_tokenizer().sha256 != expected):
        raise InputError("the symbols of its tokenizer have changed", "restore the file, or train again")
    return data


def fingerprint(data: Dataset) -> str:
    """Returns a hash that identifies data: of the number of examples, and of some of them with their labels."""
    splits = [data.train, data.valid]
    parts = [split.subsample(EXAMPLE_COUNT) for split in splits]
    tensors = [t for part in parts for t in (part.x, part.y) if t is not None]
    counts = [len(split) for split in splits]
    digest = hashlib.sha256(json.dumps([counts, data.spec.shape]).encode())
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_examples(split: Split) -> bytes:
    """Returns the content of the file of examples: evenly spaced examples of a split, with their labels."""
    x, y = split.subsample(EXAMPLE_COUNT).gather(slice(None))
    return save_tensors({"x": x} if y is None else {"x": x, "y": y})


def read_examples(file: Path, data: DataSpec) -> Batch | None:
    """Reads the examples that a run keeps; None if the file does not exist.

    Raises:
        InputError: If the file is damaged.
    """
    if not file.exists():
        return None
    with with_hint("delete it"):
        tensors = unpack(read_file(file, MAX_EXAMPLES_BYTES), file)
    x, y = tensors.get("x", torch.empty(0)), tensors.get("y")
    if tuple(x.shape[1:]) != data.shape or not len(x):
        raise InputError(f"{file} is damaged: shape {tuple(x.shape)}", "delete it")
    if not data.make_kind().accepts(x):
        raise InputError(f"{file} is damaged: its values are not data of kind {data.kind}", "delete it")
    if y is not None and (y.dtype != torch.int64 or y.ndim not in (1, 2) or len(y) != len(x)):
        raise InputError(f"{file} is damaged: its labels do not fit", "delete it")
    if y is not None and data.classes:
        with with_hint("delete it"):
            check_labels(data, y)
    return TensorSplit(x, y).batch(slice(None))


def read_result(file: Path) -> dict[str, object]:
    """Reads the result of a finished training; empty while it is unfinished.

    Raises:
        InputError: If the file is damaged.
    """
    if not file.exists():
        return {}
    hint = "delete it, and resume the run"
    with with_hint(hint):
        record = read_json(file)
    try:
        split, step, metrics = _text(record["split"]), _integer(record["step"]), parse_metrics(record["metrics"])
        if not {"elbo", "reconstruction", "kl"} <= metrics.keys():
            raise ValueError("metrics")
    except (KeyError, TypeError, ValueError, OverflowError) as e:
        raise InputError(f"{file} is damaged: {format_error(e)}", hint) from e
    return {"split": split, "step": step, "metrics": metrics}


def read_evaluations(folder: Path) -> list[dict[str, object]]:
    """Returns the evaluations that a run folder holds, in the order of their names.

    Raises:
        InputError: If one is damaged.
    """
    records = []
    for file in sorted((folder / EVALUATIONS).glob("*.json")):
        record = read_json(file)
        if record.get("schema") != EVALUATION_SCHEMA:
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


def _prior_fit(record: Mapping[str, object]) -> PriorFit:
    codes = record["codes"]
    if codes not in get_args(Codes):
        raise TypeError(f"codes {safe_repr(codes)}")
    return PriorFit(
        kind=_text(record["kind"]),
        options=_mapping(record["options"]),
        codes=cast("Codes", codes),
        seed=_integer(record["seed"]),
        first_stage=_text(record["first_stage"]),
        measured={name: _number(value) for name, value in _mapping(record.get("measured", {})).items()},
    )


def _imported(record: dict[str, object]) -> dict[str, object]:
    return {
        "class": _text(record["class"]),
        "files": _mapping(record["files"]),
        "config": _mapping(record["config"]),
    }


def _teacher(record: dict[str, object]) -> TeacherRecord:
    return TeacherRecord(path=_text(record["path"]), sha256=_text(record["sha256"]))


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"{safe_repr(value)} is not an object")
    return value


def _integer(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{safe_repr(value)} is not an integer")
    return value


def _number(value: object) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"{safe_repr(value)} is not a number")
    return cast("float", value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{safe_repr(value)} is not a string")
    return value
