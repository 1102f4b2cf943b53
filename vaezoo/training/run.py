"""Run folders: what a training leaves behind.

runs/conv-vae-digits-1/
    run.json              model, options, data, settings, versions: all that is needed to load or repeat the run
    examples.safetensors  some held-out examples: what exports are compared on, without the data set
    metrics.jsonl         one line a report: split, step, epoch, learning rate, metrics
    checkpoints/          see checkpoint.py
    result.json           metrics of the best checkpoint on the test part, written at the end
    .lock                 held by the process that trains here
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vaezoo.core.atomic import read_file
from vaezoo.core.json_io import read_json
from vaezoo.data.base import Dataset, DataSource, DataSpec, TensorSplit
from vaezoo.data.load import load_data
from vaezoo.errors import InputError, VaezooError, format_error, safe_repr, with_hint
from vaezoo.objectives.base import Objective
from vaezoo.registry import find_model
from vaezoo.spec import configure, construct
from vaezoo.training.checkpoint import Checkpoint, check_schema, find_checkpoint, not_finite, numbers, unpack
from vaezoo.training.config import TrainConfig
from vaezoo.training.preflight import as_input_error, check_size, largest_file
from vaezoo.training.run_writer import CHECKPOINTS
from vaezoo.vae import VAE

SCHEMA = 2
RUNS = Path("runs")
EXAMPLES = "examples.safetensors"
RESULT = "result.json"
EXAMPLE_COUNT = 64
MAX_EXAMPLES_BYTES = 1 << 30  # bytes; 64 of the largest images we take, in float32, are 0.8 GB


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A training that was started or finished, with the weights of one of its checkpoints.

    Attributes:
        path: The run folder.
        model: Name of the model.
        full_name: The same as `distribution/name`.
        options: The model's options, all of them.
        data: What the model was made for.
        source: How to load the data again; None if the arrays came from a program.
        training: The settings.
        checkpoint: Where the weights come from.
        vae: The model with these weights, in evaluation mode, on the CPU.
        objective: What it was trained with, likewise.
        examples: A few held-out examples in [0, 1], `(N, *shape)`; None if the run keeps none.
        result: Metrics on the held-out part and the part's name; empty while the training is unfinished.
    """

    path: Path
    model: str
    full_name: str
    options: Mapping[str, object]
    data: DataSpec
    source: DataSource | None
    training: TrainConfig
    checkpoint: Checkpoint
    vae: VAE = field(repr=False)
    objective: Objective = field(repr=False)
    examples: Tensor | None = field(repr=False)
    result: Mapping[str, object]

    def load_data(self, data_dir: str | None = None) -> Dataset:
        """Loads the data set that the run was trained on.

        Args:
            data_dir: Where the classical sets lie now, if elsewhere than at the training.

        Raises:
            VaezooError: If it came from a program's arrays, or cannot be loaded any more.
        """
        if self.source is None:
            raise VaezooError(f"{self.path} was trained on arrays of a program", "name a data set with --data")
        return load_source(self.source, data_dir)


def load_source(source: DataSource, data_dir: str | None = None, stream: bool | None = None) -> Dataset:
    """Loads a data set again; see `load_data` for what may go wrong."""
    return load_data(
        source.data,
        data_dir=data_dir or source.data_dir,
        image_size=source.image_size,
        likelihood=source.likelihood,
        stream=stream,
        on_bad_image=source.on_bad_image,
    )


class RunRecord(NamedTuple):
    """What run.json says; see Run for what is not told here.

    Attributes:
        world_size: How many processes trained together.
        device: Kind of the device that was trained on.
        torch: The version of PyTorch.
        fingerprint: Of the data, from `fingerprint`.
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


def read_run_record(path: Path) -> RunRecord:
    """Reads a run folder's run.json.

    Raises:
        InputError: If the folder is no run, or the file is damaged.
    """
    if not (path / "run.json").is_file():
        raise InputError(f"{path} is no run folder", "give a folder that 'vaezoo train' wrote, such as runs/...")
    described = read_json(path / "run.json")
    check_schema(path / "run.json", described, SCHEMA)
    try:
        return RunRecord(
            model=_text(described["model"]),
            options=_mapping(described["options"]),
            data=construct(DataSpec, _mapping(described["data"])),
            source=construct(DataSource, _mapping(described["source"])) if described["source"] is not None else None,
            training=configure(TrainConfig(), _mapping(described["training"])),
            world_size=_number(described["world_size"]),
            device=_text(described["device"]),
            torch=_text(_mapping(described["versions"])["torch"]),
            fingerprint=_text(described["fingerprint"]),
        )
    except (KeyError, TypeError) as e:
        raise InputError(
            f"{path / 'run.json'} is damaged: {format_error(e)}", "restore the file, or train again"
        ) from e
    except VaezooError as e:
        raise InputError(f"{path / 'run.json'} is damaged: {e}", e.hint) from e


def load(path: str | os.PathLike[str], checkpoint: str = "best", *, halved: bool = False) -> Run:
    """Loads a run.

    Args:
        path: The run folder.
        checkpoint: "best" on the validation part, "last", or a step.
        halved: The weights lie in float16, as those of pretrained models.

    Raises:
        InputError: If the folder is no run, or is damaged, or has no such checkpoint.
        VaezooError: If its model is not installed.
    """
    path = Path(path)
    told = read_run_record(path)
    registration = find_model(told.model)
    with as_input_error(path):
        check_size(path, registration, told.options, told.data, halved=halved)
        _, vae, objective = registration.build(told.options, told.data)
    found = find_checkpoint(path / CHECKPOINTS, checkpoint, objective.monitor, largest_file(vae, objective))
    found.restore(vae, "model", halved=halved)
    found.restore(objective, "objective", halved=halved)
    return Run(
        path=path,
        model=registration.name,
        full_name=registration.full_name,
        options=told.options,
        data=told.data,
        source=told.source,
        training=told.training,
        checkpoint=found,
        vae=vae.eval(),
        objective=objective.eval(),
        examples=read_examples(path / EXAMPLES, told.data),
        result=read_result(path / RESULT),
    )


def fingerprint(data: Dataset) -> str:
    """Returns what tells other data from these: a hash of how many examples there are and of some of them."""
    parts = [data.train, data.valid]
    some = [part.subsample(EXAMPLE_COUNT).x.contiguous().numpy().tobytes() for part in parts]
    counts = [len(part) for part in parts]
    return hashlib.sha256(json.dumps([counts, data.spec.shape]).encode() + b"".join(some)).hexdigest()


def read_examples(file: Path, data: DataSpec) -> Tensor | None:
    """Reads the examples that a run keeps, `(N, *shape)` in [0, 1]; None where there is no such file.

    Raises:
        InputError: If the file is damaged.
    """
    if not file.exists():
        return None
    with with_hint("delete it"):
        examples = unpack(read_file(file, MAX_EXAMPLES_BYTES), file).get("x", torch.empty(0))
    if tuple(examples.shape[1:]) != data.shape or not len(examples):
        raise InputError(f"{file} is damaged: shape {tuple(examples.shape)}", "delete it")
    if examples.dtype not in (torch.uint8, torch.float32) or not_finite({"x": examples}):
        raise InputError(f"{file} is damaged: no pixels", "delete it")
    return TensorSplit(examples, None).batch(slice(None)).x


def read_result(file: Path) -> dict[str, object]:
    """Reads what a finished training says of itself; empty while it is unfinished.

    Raises:
        InputError: If the file is damaged.
    """
    if not file.exists():
        return {}
    mend = "delete it, and resume the run"
    with with_hint(mend):
        told = read_json(file)
    try:
        split, step, metrics = _text(told["split"]), _number(told["step"]), numbers(told["metrics"])
        if not {"elbo", "reconstruction", "kl"} <= metrics.keys():
            raise ValueError("metrics")
    except (KeyError, TypeError, ValueError, OverflowError) as e:
        raise InputError(f"{file} is damaged: {format_error(e)}", mend) from e
    return {"split": split, "step": step, "metrics": metrics}


def newest_run(model: str | None = None, folder: Path = RUNS) -> Path:
    """Returns the run that was started last, of one model or of any.

    Raises:
        InputError: If there is none.
    """
    runs = sorted(folder.glob("*/run.json"), key=lambda file: (file.stat().st_mtime_ns, file))
    for file in reversed(runs):
        if model is None or str(read_json(file).get("model")).rpartition("/")[2] == model.rpartition("/")[2]:
            return file.parent
    what = f"no run of {model}" if model else "no run"
    hint = f"train one first: vaezoo train {model or 'conv-vae'}; or take one that 'vaezoo pretrained' lists"
    raise InputError(f"{what} in {folder}/", hint)


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"{safe_repr(value)} is no object")
    return value


def _number(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{safe_repr(value)} is no number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{safe_repr(value)} is no text")
    return value
