"""`resume` continues an interrupted run."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from pathlib import Path

import torch

from vaezoo.core import distributed, signals
from vaezoo.core.device import resolve_device
from vaezoo.core.memory import available_memory
from vaezoo.data.base import Dataset
from vaezoo.errors import InputError, VaezooError, VaezooWarning
from vaezoo.registry import find_model
from vaezoo.training.checkpoint import Checkpoint, find_checkpoint, list_checkpoints
from vaezoo.training.preflight import as_input_error, check_size, max_checkpoint_bytes
from vaezoo.training.run import (
    EXAMPLES,
    RESULT,
    Run,
    RunRecord,
    fingerprint,
    load,
    load_source,
    read_examples,
    read_run_record,
)
from vaezoo.training.run_dir import lock_run_dir
from vaezoo.training.run_writer import CHECKPOINTS
from vaezoo.training.train import OnReport, OnStart, Setup, build_setup, run_training
from vaezoo.training.validate import check_device, validate_setup


def resume(
    path: str | os.PathLike[str],
    data: Dataset | None = None,
    *,
    data_dir: str | None = None,
    stream: bool | None = None,
    device: str | None = None,
    workers: int | None = None,
    on_report: OnReport = lambda report: None,
    on_start: OnStart = lambda trainer, path: None,
) -> Run:
    """Continues a run from its newest complete checkpoint, and returns it finished.

    The result has the same bytes as without the interruption, given the same machine, kind of device, number of
    processes and version of PyTorch. A finished run is returned as it is.

    Args:
        path: The run folder.
        data: The data set; needed if the run was trained on arrays of a program.
        data_dir: The folder of the standard data sets, if it has moved.
        stream: As in `load_data`.
        device: Another device.
        workers: Another number of threads that prepare data.
        on_report: As in `train`.
        on_start: As in `train`.

    Raises:
        InputError: If the folder is not a run, or is damaged, or the data are not those of the run.
        StorageError: If another process trains in this folder, or it cannot be written.
        VaezooError, DivergedError, Stopped: As in `train`.
    """
    path = Path(path)
    record = read_run_record(path)
    if (path / RESULT).exists():
        run = load(path)
        if run.result["step"] == run.checkpoint.step:
            return run  # otherwise the checkpoint of the result was damaged later, and the run is trained again
    changes = {name: value for name, value in (("device", device), ("workers", workers)) if value is not None}
    config = replace(record.training, **changes)  # type: ignore[arg-type]
    torch_device = resolve_device(config.device)
    check_device(torch_device, config)
    registration = find_model(record.model)
    registration.load()
    data = data or load_run_data(path, record, data_dir, stream)
    same_spec = replace(data.spec, name=record.data.name) == record.data
    if not same_spec or fingerprint(data) != record.fingerprint:
        raise InputError(f"the data are not those that {path} was trained on", "restore them, or train a new run")
    read_examples(path / EXAMPLES, record.data)  # find damaged ones now, not at the end of the training
    with as_input_error(path):
        check_size(path, registration, record.options, data.spec, available_memory())
        setup = build_setup(registration, record.options, data, config)
    with distributed.init_distributed(torch_device), signals.defer_signals():
        validate_setup(setup.vae, setup.objective, data, config)
        warn_of_changes(record, torch_device)
        with lock_run_dir(path):
            checkpoint = find_newest(path / CHECKPOINTS, setup)
            return run_training(path, setup, checkpoint, on_report, on_start)


def load_run_data(path: Path, record: RunRecord, data_dir: str | None, stream: bool | None) -> Dataset:
    """Loads the data of a run. Raises VaezooError if the run was trained on arrays that a program passed."""
    if record.source is None:
        raise VaezooError(f"{path} was trained on arrays of a program", "resume it in that program, with its data")
    return load_source(record.source, data_dir, stream)


def find_newest(folder: Path, setup: Setup) -> Checkpoint | None:
    """Returns the newest complete checkpoint, the same in all processes; None if none was saved yet."""
    max_bytes = max_checkpoint_bytes(setup.vae, setup.objective)

    def choose() -> str:
        complete, damaged = list_checkpoints(folder, max_bytes)
        return str(find_checkpoint(folder, "last", None, max_bytes).step) if complete or damaged else ""

    step = distributed.broadcast(choose)
    return find_checkpoint(folder, step, None, max_bytes) if step else None


def warn_of_changes(record: RunRecord, device: torch.device) -> None:
    """Warns if a resumed run cannot be expected to end in the same bytes."""
    pairs = {
        "device": (record.device, device.type),
        "processes": (str(record.world_size), str(distributed.world_size())),
        "PyTorch": (record.torch, torch.__version__),
    }
    changed = [f"{name} {old}, now {new}" for name, (old, new) in pairs.items() if old != new]
    if changed and distributed.rank() == 0:
        what = f"the setup has changed ({'; '.join(changed)}): the run continues, but not to the same bytes"
        warnings.warn(what, VaezooWarning, stacklevel=2)
