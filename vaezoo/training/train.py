"""`train`, which makes a run from names and settings, and `resume`, which goes on with one."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save as save_tensors

from vaezoo.core import distributed, signals
from vaezoo.core.atomic import write_file
from vaezoo.core.device import resolve_device
from vaezoo.core.json_io import write_json
from vaezoo.core.memory import available_memory
from vaezoo.core.seed import derive_seed
from vaezoo.data.base import Dataset
from vaezoo.data.load import load_data
from vaezoo.data.prefetch import to_device_if_fits
from vaezoo.errors import DivergedError, InputError, StorageError, VaezooError, VaezooWarning, safe_repr
from vaezoo.objectives.base import Objective
from vaezoo.registry import Registration, find_model
from vaezoo.spec import config_json
from vaezoo.training.checkpoint import Checkpoint, find_checkpoint, list_checkpoints
from vaezoo.training.config import TrainConfig
from vaezoo.training.preflight import as_input_error, check_size, largest_file
from vaezoo.training.reports import Report
from vaezoo.training.run import (
    EXAMPLE_COUNT,
    EXAMPLES,
    RESULT,
    SCHEMA,
    Run,
    RunRecord,
    fingerprint,
    load,
    load_source,
    read_examples,
    read_run_record,
)
from vaezoo.training.run_dir import create_run_dir, lock_run_dir
from vaezoo.training.run_writer import CHECKPOINTS, RunWriter
from vaezoo.training.trainer import Trainer
from vaezoo.training.validate import check_device, validate_setup
from vaezoo.training.validation import evaluate
from vaezoo.vae import VAE

OnReport = Callable[[Report], None]
OnStart = Callable[[Trainer, Path], None]


def train(
    model: str,
    data: Dataset | str | os.PathLike[str] = "digits",
    *,
    options: Mapping[str, object] | None = None,
    config: TrainConfig | None = None,
    out: str | os.PathLike[str] | None = None,
    on_report: OnReport = lambda report: None,
    on_start: OnStart = lambda trainer, path: None,
) -> Run:
    """Trains a model and returns the finished run, with the best checkpoint's weights.

    Started by torchrun in several processes, these train together; the first one writes the run folder.

    Args:
        model: A registered model.
        data: A data set, or its name or path.
        options: The model's options that differ from their defaults.
        config: The settings.
        out: The run folder; by default the next free `runs/MODEL-DATA-N`.
        on_report: Called with each report, that of an evaluation when its checkpoint is safe; with several ranks on the
            first alone.
        on_start: Called with the trainer and the run folder before the first step, on each rank.

    Raises:
        VaezooError: If a name, an option or a setting is wrong; nothing has been written then.
        StorageError: If the run folder is in the way or cannot be written.
        DivergedError: If a loss or gradient becomes infinite or NaN; earlier checkpoints are whole.
        Stopped: If the process was asked to end (see `vaezoo.core.signals`); `resume` goes on.
    """
    config = config or TrainConfig()
    device = resolve_device(config.device)
    check_device(device, config)
    registration = find_model(model)
    registration.load()  # a broken model is told before the data are loaded
    data = data if isinstance(data, Dataset) else load_data(data)
    setup = set_up(registration, options or {}, data, config.decided(len(data.train)))
    with distributed.init_distributed(device), signals.defer_signals():
        validate_setup(setup.vae, setup.objective, data, config)
        path = Path(distributed.broadcast(lambda: str(create_run_dir(out, f"{registration.name}-{data.spec.name}"))))
        with lock_run_dir(path):
            if distributed.rank() == 0:
                write_json(path / "run.json", describe(setup, device))  # the first: from it all others can be made
            distributed.barrier()
            if not (path / "run.json").exists():
                raise StorageError(
                    f"rank {distributed.rank()} does not see {path}", "give an --out on a disk that all share"
                )
            return run_training(path, setup, None, on_report, on_start)


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
    """Goes on with a run from its newest whole checkpoint, and returns it finished.

    On the same machine, kind of device, number of ranks and version of PyTorch it ends in the same bytes as without the
    interruption. A finished run is returned as it is.

    Args:
        path: The run folder.
        data: The data set; needed if the run was trained on a program's arrays.
        data_dir: Where torchvision's sets lie now, if elsewhere than at the start.
        stream: As in `load_data`.
        device: Another device than at the start.
        workers: Another number of threads that prepare data.
        on_report: As in `train`.
        on_start: As in `train`.

    Raises:
        InputError: If the folder is no run, or is damaged, or the data are not those of the run.
        StorageError: If another process trains in this folder, or it cannot be written.
        VaezooError, DivergedError, Stopped: As in `train`.
    """
    path = Path(path)
    told = read_run_record(path)
    if (path / RESULT).exists():
        run = load(path)
        if run.result["step"] == run.checkpoint.step:
            return run  # else the checkpoint that the result is of has been damaged since: it is trained again
    changes = {name: value for name, value in (("device", device), ("workers", workers)) if value is not None}
    config = replace(told.training, **changes)  # type: ignore[arg-type]
    where = resolve_device(config.device)
    check_device(where, config)
    registration = find_model(told.model)
    registration.load()
    if data is None and told.source is None:
        raise VaezooError(f"{path} was trained on arrays of a program", "resume it in that program, with its data")
    data = data or load_source(told.source, data_dir, stream)  # type: ignore[arg-type]
    begun = told.data.shape, told.data.likelihood, told.fingerprint
    if (data.spec.shape, data.spec.likelihood, fingerprint(data)) != begun:
        raise InputError(f"the data are not those that {path} was trained on", "bring them back, or train a new run")
    read_examples(path / EXAMPLES, told.data)  # the end would refuse damaged ones, hours later
    with as_input_error(path):
        check_size(path, registration, told.options, data.spec, available_memory())
        setup = set_up(registration, told.options, data, config)
    with distributed.init_distributed(where), signals.defer_signals():
        validate_setup(setup.vae, setup.objective, data, config)
        warn_of_changes(told, where)
        with lock_run_dir(path):
            found = newest_for_all(path / CHECKPOINTS, setup)
            return run_training(path, setup, found, on_report, on_start)


class Setup(NamedTuple):
    """What is trained, on what, and how; `options` are all of the model's."""

    registration: Registration
    options: Mapping[str, object]
    vae: VAE
    objective: Objective
    data: Dataset
    config: TrainConfig


def set_up(registration: Registration, options: Mapping[str, object], data: Dataset, config: TrainConfig) -> Setup:
    """Builds a model and its objective with the initial weights that the run's seed determines."""
    with torch.random.fork_rng([]):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        model_config, vae, objective = registration.build(options, data.spec)
    return Setup(registration, config_json(model_config), vae, objective, data, config)


def describe(setup: Setup, device: torch.device) -> dict[str, object]:
    """Returns what run.json says of a run."""
    data, registration = setup.data, setup.registration
    return {
        "schema": SCHEMA,
        "model": registration.full_name,
        "options": setup.options,
        "data": asdict(data.spec),
        "source": data.source and asdict(data.source),
        "fingerprint": fingerprint(data),
        "training": asdict(setup.config),
        "world_size": distributed.world_size(),
        "device": device.type,
        "versions": {
            "vaezoo": version("vaezoo"),
            registration.distribution: registration.version,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def run_training(path: Path, setup: Setup, found: Checkpoint | None, on_report: OnReport, on_start: OnStart) -> Run:
    """Trains in a run folder, from a checkpoint or from the start, and returns the finished run."""
    registration, _, vae, objective, data, config = setup
    if found is None:
        begin(setup)
    recorder = RunWriter(path, vae, objective, on_report)
    trainer = Trainer(vae, objective, data, config, on_report=recorder.report, on_checkpoint=recorder.checkpoint)
    if found:
        restore_trainer(trainer, found)
    if distributed.rank() == 0:
        if not (path / EXAMPLES).exists():
            write_file(path / EXAMPLES, save_tensors({"x": data.held_out[1].subsample(EXAMPLE_COUNT).x}))
        recorder.rewind(found)
    on_start(trainer, path)
    try:
        trainer.fit()
        distributed.barrier()  # rank 0 has written its last checkpoint
        return finish(load(path), data, trainer.device)
    except DivergedError as e:
        whole, _ = list_checkpoints(path / CHECKPOINTS)  # none, if the untrained model gives NaN
        last = f"; the last checkpoint in {path} is that of step {whole[-1].step}" if whole else ""
        raise DivergedError(e.message, e.hint + last) from e
    except signals.Stopped as e:
        e.hint = f"step {trainer.done} of {trainer.steps} is saved: vaezoo train --resume {path}"
        raise
    except StorageError as e:
        raise StorageError(e.message, f"{e.hint}; then vaezoo train --resume {path}") from e
    except Exception as e:  # a third party's model may raise anything; what ours raise beside these is a defect
        if registration.built_in or distributed.world_size() > 1 or isinstance(e, VaezooError | OSError):
            raise
        raise registration.failure("trained", e) from e


def begin(setup: Setup) -> None:
    """Lets a model take from the data what its first weights need.

    Raises:
        PluginError: If a third party's model fails at it.
    """
    try:
        setup.vae.init_from_data(setup.data.train)
    except Exception as e:
        if setup.registration.built_in or distributed.world_size() > 1 or isinstance(e, VaezooError | OSError):
            raise
        raise setup.registration.failure("begun", e) from e


def restore_trainer(trainer: Trainer, found: Checkpoint) -> None:
    """Puts a trainer where a checkpoint was saved.

    Raises:
        InputError: If the checkpoint does not fit the trainer.
    """
    found.restore(trainer.vae, "model")
    found.restore(trainer.objective, "objective")
    try:
        if found.counters["done"] != found.step:
            raise ValueError(f"it counts {safe_repr(found.counters['done'])} steps")
        trainer.restore(found.counters, partial(found.read, "training"))
    except (KeyError, ValueError, TypeError, OverflowError) as e:
        raise InputError(f"{found.path} holds no state of a training: {e}", "train again") from e


def finish(run: Run, data: Dataset, device: torch.device) -> Run:
    """Evaluates a run on the held-out part, writes result.json, and returns the run with it."""
    split, part = data.held_out
    metrics = evaluate(run.vae.to(device), run.objective.to(device), to_device_if_fits(part, device), run.training)
    run.vae.cpu()
    run.objective.cpu()
    result = {"split": split, "step": run.checkpoint.step, "metrics": metrics}
    if distributed.rank() == 0:
        write_json(run.path / RESULT, result)
    return replace(run, result=result)


def newest_for_all(folder: Path, setup: Setup) -> Checkpoint | None:
    """Returns the newest whole checkpoint, the same on all ranks; None if none was saved before the run was killed."""
    most = largest_file(setup.vae, setup.objective)

    def choose() -> str:
        there, damaged = list_checkpoints(folder, most)
        return str(find_checkpoint(folder, "last", None, most).step) if there or damaged else ""

    step = distributed.broadcast(choose)
    return find_checkpoint(folder, step, None, most) if step else None


def warn_of_changes(told: RunRecord, device: torch.device) -> None:
    """Warns where a resumed run cannot be expected to end in the same bytes."""
    pairs = {
        "device": (told.device, device.type),
        "processes": (str(told.world_size), str(distributed.world_size())),
        "PyTorch": (told.torch, torch.__version__),
    }
    changed = [f"{name} {old}, now {new}" for name, (old, new) in pairs.items() if old != new]
    if changed and distributed.rank() == 0:
        what = f"the run began otherwise ({'; '.join(changed)}): it goes on, but not to the same bytes"
        warnings.warn(what, VaezooWarning, stacklevel=2)
