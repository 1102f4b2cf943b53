"""`resume` continues an interrupted run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch

from vaezoo.core import distributed, signals
from vaezoo.core.atomic import fsync, storage_errors
from vaezoo.core.device import resolve_device
from vaezoo.core.json_io import read_json, write_json
from vaezoo.core.memory import available_memory
from vaezoo.data.base import Dataset, DataSource
from vaezoo.errors import InputError, VaezooError, VaezooWarning, safe_repr
from vaezoo.registry import find_model
from vaezoo.training.checkpoint import Checkpoint, find_checkpoint, list_checkpoints
from vaezoo.training.config import TrainConfig
from vaezoo.training.preflight import as_input_error, check_size, max_checkpoint_bytes
from vaezoo.training.prior_fit import PriorFit
from vaezoo.training.progress import OnReport, OnStart, progress_view
from vaezoo.training.run import Run, load, load_source
from vaezoo.training.run_dir import lock_run_dir
from vaezoo.training.run_files import EXAMPLES, RESULT, RunRecord, fingerprint, read_examples, read_run_record
from vaezoo.training.run_writer import CHECKPOINTS
from vaezoo.training.teacher import load_teacher, with_teacher
from vaezoo.training.train import Setup, build_setup, run_training
from vaezoo.training.validate import check_device, validate_setup


def resume(
    path: str | os.PathLike[str],
    data: Dataset | str | os.PathLike[str] | None = None,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    data_dir: str | None = None,
    stream: bool | None = None,
    device: str | None = None,
    workers: int | None = None,
    samples_every: int | None = None,
    log_csv: bool | None = None,
    teacher: str | os.PathLike[str] | None = None,
    progress: bool = False,
    on_report: OnReport = lambda report: None,
    on_start: OnStart = lambda trainer, path: None,
) -> Run:
    """Continues a run from its newest complete checkpoint, and returns it finished.

    The result has the same bytes as without the interruption, given the same machine, kind of device, number of
    processes and version of PyTorch. A finished run is returned as it is, unless `epochs` or `steps` makes it longer.
    A longer run has the same weights as one that had this length from the start.

    Args:
        path: The run folder.
        data: The data set, if the run was trained on arrays of a program. Or the new path of data that have moved,
            which the run then stores.
        epochs: Another length of the whole training, in epochs.
        steps: Another length in steps, instead of epochs.
        data_dir: The folder of the standard data sets, if it has moved.
        stream: As in `load_data`.
        device: Another device.
        workers: Another number of threads that prepare data.
        samples_every: As in TrainConfig, for this part of the training.
        log_csv: Likewise.
        teacher: The new folder of the run's teacher, if it has moved.
        progress: As in `train`.
        on_report: As in `train`.
        on_start: As in `train`.

    Raises:
        InputError: If the folder is not a run, or is damaged, or the data or the teacher are not those of the run.
        StorageError: If another process trains in this folder, or it cannot be written.
        VaezooError: As in `train`. Also if the run was imported, or the length cannot change: the schedule depends on
            it, the run has more steps already, or it stopped early.
        DivergedError, Stopped: As in `train`.
    """
    path = Path(path)
    record = read_run_record(path)
    if record.imported is not None:
        what = f"{path} was imported, so there is no training to continue"
        raise VaezooError(what, f"start one from its weights: --init-from {path}")
    moved = data if isinstance(data, str | os.PathLike) else None
    config = with_length(record.training, epochs, steps)
    if config == record.training and moved is None and (run := load_finished(path)):
        if record.source is None and isinstance(data, Dataset):
            check_same_data(path, record, data)
            return replace(run, dataset=data)
        return run
    if record.prior is not None:
        refuse_fitted(path, record.prior)
    changes = {"device": device, "workers": workers, "samples_every": samples_every, "log_csv": log_csv}
    config = replace(config, **{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]
    torch_device = resolve_device(config.device)
    check_device(torch_device, config)
    registration = find_model(record.model)
    registration.load()
    if not isinstance(data, Dataset):
        data = load_run_data(path, record, data_dir, stream, moved)
    check_same_data(path, record, data)
    read_examples(path / EXAMPLES, record.data)  # find damaged ones now, not at the end of the training
    with as_input_error(path):
        check_size(path, registration, record.options, data.spec, available_memory(), prior=record.prior)
        setup = build_setup(registration, record.options, data, config, record.prior)
    if record.teacher is None and teacher is not None:
        raise VaezooError(f"{path} was started without a teacher", "leave out --teacher, or start another run")
    if record.teacher is not None:
        taught_by = load_teacher(record.teacher, teacher)
        setup = setup._replace(objective=with_teacher(setup.vae, setup.objective, taught_by))
    with distributed.init_distributed(torch_device), signals.defer_signals():
        validate_setup(setup.vae, setup.objective, data, config)
        warn_of_changes(record, torch_device)
        with lock_run_dir(path):
            checkpoint = find_newest(path / CHECKPOINTS, setup)
            if checkpoint is None and record.init_from:
                what = f"{path} was stopped before its first checkpoint, so the weights that it started from are lost"
                again = "train again with --init-from" if record.prior is None else "use 'vaezoo fit-prior' again"
                raise InputError(what, f"remove the folder, and {again}")
            updates: dict[str, object] = {} if moved is None or data.source is None else {"source": asdict(data.source)}
            if changes_length(path, record.training, config, len(data.train), checkpoint):
                lengths = {"epochs": config.epochs, "steps": config.steps}
                updates["training"] = {**asdict(record.training), **lengths}
            update_run_record(path, updates)
            distributed.barrier()
            if run := load_finished(path):
                return run
            with progress_view(progress, on_report, on_start) as callbacks:
                return run_training(path, setup, checkpoint, *callbacks)


def with_length(config: TrainConfig, epochs: int | None, steps: int | None) -> TrainConfig:
    """Returns settings with another length; without `epochs` and `steps`, the same settings.

    Raises:
        VaezooError: If both are given.
    """
    if epochs is None and steps is None:
        return config
    if epochs is not None and steps is not None:
        raise VaezooError("epochs and steps both set the length of the training", "give one of them")
    return replace(config, epochs=config.epochs if epochs is None else epochs, steps=steps)


def refuse_fitted(path: Path, prior: PriorFit) -> None:
    """Raises an error if the prior of an unfinished or a longer run is not trained step by step."""
    with as_input_error(path):
        trained = prior.make_kind().trained
    if trained:
        return
    if (path / RESULT).exists():
        what = f"the prior of {path}, of kind {prior.kind}, is not trained in steps"
        raise VaezooError(what, "leave out the length, or fit another prior with 'vaezoo fit-prior'")
    raise InputError(
        f"{path} was stopped before the prior was fitted", "remove the folder, and use 'vaezoo fit-prior' again"
    )


def check_same_data(path: Path, record: RunRecord, data: Dataset) -> None:
    """Raises InputError unless data are those that a run was trained on."""
    spec = replace(data.spec, name=record.data.name)
    if not (spec.column_names and record.data.column_names):  # a file has no names, and neither has an old run
        spec = replace(spec, column_names=record.data.column_names)
    if spec.likelihood == "table":  # the default, instead of which a model may have a likelihood of its own
        spec = replace(spec, likelihood=record.data.likelihood)
    if spec != record.data or fingerprint(data) != record.fingerprint:
        raise InputError(f"the data are not those that {path} was trained on", "restore them, or train a new run")


def load_finished(path: Path) -> Run | None:
    """Returns a run if it is finished and the checkpoint of its result is intact."""
    if not (path / RESULT).exists():
        return None
    run = load(path)
    return run if run.result["step"] == run.checkpoint.step else None


def changes_length(
    path: Path, old: TrainConfig, new: TrainConfig, examples: int, checkpoint: Checkpoint | None
) -> bool:
    """Tells whether the number of steps changes.

    Raises:
        VaezooError: If it cannot change in this run.
    """
    before, after = (config.total_steps(examples) for config in (old, new))
    if before == after:
        return False
    if old.schedule == "cosine":
        what = f"{path} cannot get {after:,} steps: its cosine schedule ends at step {before:,}"
        raise VaezooError(what, f"start a new run from its weights: --init-from {path}")
    done = checkpoint.step if checkpoint else 0
    if after < done:
        raise VaezooError(f"{path} has {done:,} steps already, more than {after:,}", f"give more than {done:,} steps")
    wait_count = checkpoint.counters.get("wait_count") if checkpoint else 0
    if old.early_stopping is not None and isinstance(wait_count, int) and wait_count >= old.early_stopping:
        what = f"{path} stopped early at step {done:,}: {wait_count} evaluations in a row were not better"
        raise VaezooError(what, f"start a new run from its weights: --init-from {path}")
    return True


def update_run_record(path: Path, updates: Mapping[str, object]) -> None:
    """Replaces fields of run.json. With another length, the run is no longer finished."""
    if not updates or distributed.rank():
        return
    if "training" in updates:  # first the result: without it an interrupted change leaves an unfinished run
        with storage_errors(str(path / RESULT)):
            (path / RESULT).unlink(missing_ok=True)
            fsync(path)
    write_json(path / "run.json", {**read_json(path / "run.json"), **updates})


def load_run_data(
    path: Path,
    record: RunRecord,
    data_dir: str | None,
    stream: bool | None,
    moved: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Loads the data of a run.

    Args:
        path: The run folder.
        record: Its record.
        data_dir: As in `resume`, as `stream`.
        stream: See there.
        moved: The new path of the data, if they have moved.

    Raises:
        VaezooError: If the run was trained on arrays that a program passed.
        InputError: If the data are not where they were.
    """
    source = record.source
    if moved is not None:
        source = source or DataSource(data="", scale=record.data.scaling.name)
        source = replace(source, data=os.path.abspath(os.path.expanduser(moved)))
        return load_source(source, record.data, data_dir, stream)
    if record.imported is not None:
        raise VaezooError(f"{path} was imported, so it has no data", "name the data: --data FOLDER")
    if source is None:
        hint = "resume it in that program, with its data, or name a file that holds them with --data"
        raise VaezooError(f"{path} was trained on arrays of a program", hint)
    if os.path.isabs(source.data) and not os.path.exists(source.data):
        hint = "if they have moved, name their new place with --data"
        raise InputError(f"the data of {path} are no longer at {safe_repr(source.data)}", hint)
    with as_input_error(path):  # a damaged record may name a likelihood that its data cannot have
        return load_source(source, record.data, data_dir, stream)


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
