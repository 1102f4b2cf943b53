"""`train` starts a run from names and settings. `resume.py` continues one."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from vaezoo.core import distributed, signals
from vaezoo.core.atomic import write_file
from vaezoo.core.device import resolve_device
from vaezoo.core.json_io import write_json
from vaezoo.core.options import config_json
from vaezoo.core.seed import derive_seed
from vaezoo.data.base import Dataset
from vaezoo.data.convert import TorchData, Values
from vaezoo.data.load import to_dataset
from vaezoo.data.prefetch import to_device_if_fits
from vaezoo.errors import DivergedError, InputError, StorageError, VaezooError, VaezooWarning, safe_repr
from vaezoo.objectives.base import Objective
from vaezoo.registry import Registration, find_model
from vaezoo.training.checkpoint import Checkpoint, list_checkpoints
from vaezoo.training.config import TrainConfig, as_config
from vaezoo.training.prior_fit import PriorFit, add_prior
from vaezoo.training.progress import OnReport, OnStart, progress_view
from vaezoo.training.reports import ONLY_WORSE
from vaezoo.training.run import Run, load
from vaezoo.training.run_dir import create_run_dir, lock_run_dir, remove_unsaved_run
from vaezoo.training.run_files import EXAMPLES, RESULT, SCHEMA, fingerprint, save_examples
from vaezoo.training.run_writer import CHECKPOINTS, RunWriter
from vaezoo.training.teacher import describe_teacher, with_teacher
from vaezoo.training.trainer import Trainer
from vaezoo.training.validate import check_device, validate_setup
from vaezoo.training.validation import evaluate, reconstruction_error
from vaezoo.training.warm_start import init_weights
from vaezoo.vae import VAE


def train(
    model: str,
    data: Dataset | str | os.PathLike[str] | Values | TorchData = "digits",
    *,
    options: Mapping[str, object] | None = None,
    config: TrainConfig | Mapping[str, object] | None = None,
    out: str | os.PathLike[str] | None = None,
    init_from: Run | str | os.PathLike[str] | None = None,
    teacher: Run | str | os.PathLike[str] | None = None,
    progress: bool = False,
    on_report: OnReport = lambda report: None,
    on_start: OnStart = lambda trainer, path: None,
) -> Run:
    """Trains a model and returns the finished run, with the best checkpoint's weights.

    Processes that torchrun started train together. The primary one writes the run folder.

    Args:
        model: A registered model.
        data: A data set, or its name or path. Arrays, data frames and data sets of PyTorch as `from_arrays` takes them.
        options: Options of the model that differ from their defaults.
        config: The settings, as a TrainConfig or by name, such as {"epochs": 3}.
        out: The run folder; by default the next free `runs/MODEL-DATA-N`.
        init_from: A run, or its folder, with whose weights the training starts. Step, optimizer and average start anew.
        teacher: A run, or its folder, whose latents the model learns; see `vaezoo.objectives.distillation`. The model
            must encode to a point, with latents of the same shape.
        progress: Show the progress on stderr, as the command line does.
        on_report: Called with each report in the primary process. That of an evaluation follows when its checkpoint is
            safe on the disk.
        on_start: Called with the trainer and the run folder before the first step, in each process.

    Raises:
        VaezooError: If a name, an option or a setting is wrong, the weights of `init_from` or the latents of `teacher`
            do not fit the model, or a batch does not fit in memory. Without a checkpoint no run folder is left.
        StorageError: If the run folder exists or cannot be written.
        DivergedError: If a loss, metric, gradient or buffer is not finite; earlier checkpoints are complete.
        Stopped: If the process was asked to stop (see `vaezoo.signals`); `resume` continues.
    """
    check_names(model, options)
    config = as_config(config)
    device = resolve_device(config.device)
    check_device(device, config)
    registration = find_model(model)
    registration.load()  # report a broken model before the data are loaded
    data = to_dataset(data)
    setup = build_setup(registration, options or {}, data, config.resolved(len(data.train)))
    first = None if init_from is None else init_from if isinstance(init_from, Run) else load(init_from)
    if first:
        init_weights(setup.vae, setup.objective, registration.name, first, setup.options)
    taught_by = None if teacher is None else teacher if isinstance(teacher, Run) else load(teacher)
    if taught_by:
        setup = setup._replace(objective=with_teacher(setup.vae, setup.objective, taught_by))
    with distributed.init_distributed(device), signals.defer_signals():
        validate_setup(setup.vae, setup.objective, data, config)
        stem = f"{registration.name}-{data.spec.name}"
        with (
            new_run_dir(out, stem, describe(setup, device, first, teacher=taught_by)) as path,
            progress_view(progress, on_report, on_start) as callbacks,
        ):
            return run_training(path, setup, None, *callbacks, initialised=first is not None)


@contextmanager
def new_run_dir(out: str | os.PathLike[str] | None, stem: str, record: Mapping[str, object]) -> Iterator[Path]:
    """Creates and locks the folder of a new run, the same in all processes, for the block.

    If the block fails before the first checkpoint, the folder is removed, unless `resume` can continue.

    Args:
        out: As in `create_run_dir`, as `stem`.
        stem: See there.
        record: The contents of run.json.

    Raises:
        StorageError: If the folder exists or cannot be written, or a process does not see it.
    """
    path = Path(distributed.broadcast(lambda: str(create_run_dir(out, stem))))
    try:
        with lock_run_dir(path):
            if distributed.rank() == 0:
                write_json(path / "run.json", record)  # first: all else can be made from it
            distributed.barrier()
            if not (path / "run.json").exists():
                what = f"process {distributed.rank()} does not see {path}"
                raise StorageError(what, "give an --out on a disk that all processes share")
            yield path
    except (signals.Stopped, StorageError):  # `resume` continues
        raise
    except VaezooError:
        if distributed.rank() == 0:
            remove_unsaved_run(path)
        raise


def check_names(model: object, options: object) -> None:
    """Raises VaezooError unless a model is given by its name, and its options by theirs."""
    if not isinstance(model, str):
        kind = model if isinstance(model, type) else type(model)
        hint = "vaezoo.Trainer trains a module of your own; docs/plugins.md gives it a name"
        if issubclass(kind, nn.Module) and not issubclass(kind, VAE):
            hint = "make it a vaezoo.VAE, which vaezoo.Trainer trains; docs/plugins.md has an example"
        raise VaezooError(f"train takes the name of a model, not a {kind.__name__}", hint)
    if not isinstance(options, Mapping | None):
        what = f"options are a dict, not {safe_repr(options)}"
        raise VaezooError(what, "for example options={'latent_dim': 8}")


class Setup(NamedTuple):
    """A training that is ready to start; `options` are all options of the model."""

    registration: Registration
    options: Mapping[str, object]
    vae: VAE
    objective: Objective
    data: Dataset
    config: TrainConfig


def build_setup(
    registration: Registration,
    options: Mapping[str, object],
    data: Dataset,
    config: TrainConfig,
    prior: PriorFit | None = None,
) -> Setup:
    """Builds a model and its objective with the initial weights that the run's seed determines.

    With `prior` the model has a prior that is fitted after training, without its weights.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        model_config, vae, objective = registration.build(options, data.spec)
        if prior is not None:
            objective = add_prior(vae, prior)
    if vae.data.likelihood != data.spec.likelihood:  # a model may have one of its own
        data = replace(data, spec=replace(data.spec, likelihood=vae.data.likelihood))
    return Setup(registration, config_json(model_config), vae, objective, data, config)


def imported_class(run: Run) -> str:
    """Returns the class that the weights of a run, or those that it began with, were imported from. Empty: none."""
    return run.first_imported if run.imported is None else str(run.imported["class"])


def describe(
    setup: Setup,
    device: torch.device,
    init_from: Run | None,
    prior: PriorFit | None = None,
    teacher: Run | None = None,
) -> dict[str, object]:
    """Returns the contents of run.json."""
    data, registration = setup.data, setup.registration
    origin = init_from and {
        "model": init_from.full_name,
        "step": init_from.checkpoint.step,
        "sha256": init_from.checkpoint.model_sha256,
        **({"imported": imported} if (imported := imported_class(init_from)) else {}),
    }
    optional: dict[str, object] = {} if prior is None else {"prior": asdict(prior)}
    if teacher is not None:
        optional["teacher"] = describe_teacher(teacher)._asdict()
    return {
        "schema": SCHEMA,
        "model": registration.full_name,
        "options": setup.options,
        "data": asdict(data.spec),
        "source": data.source and asdict(data.source),
        **({"tokenizer_sha256": data.spec.make_tokenizer().sha256} if data.spec.tokenizer else {}),
        "fingerprint": fingerprint(data),
        "training": asdict(setup.config),
        "monitor": setup.objective.monitor,
        "init_from": origin,
        "world_size": distributed.world_size(),
        "device": device.type,
        "versions": versions(registration),
    } | optional


def versions(registration: Registration) -> dict[str, str]:
    """Returns the versions that run.json holds: those of vaezoo, of the model's package, of torch and of Python."""
    return {
        "vaezoo": version("vaezoo"),
        registration.distribution: registration.version,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def run_training(
    path: Path,
    setup: Setup,
    checkpoint: Checkpoint | None,
    on_report: OnReport,
    on_start: OnStart,
    *,
    initialised: bool = False,
) -> Run:
    """Trains in a run folder, from a checkpoint or from the start, and returns the finished run.

    Args:
        path: The run folder.
        setup: The training.
        checkpoint: Where to continue; None to start.
        on_report: As in `train`, as `on_start`.
        on_start: See there.
        initialised: Whether the model has the weights to start from. Otherwise it may take some from the data.
    """
    registration, _, vae, objective, data, config = setup
    if checkpoint is None:
        init_model(setup, weights=not initialised)
    writer = RunWriter(path, vae, objective, on_report, log_csv=config.log_csv)
    trainer = Trainer(
        vae,
        objective,
        data,
        config,
        on_report=writer.report,
        on_checkpoint=writer.checkpoint,
        on_samples=writer.samples,
    )
    if checkpoint:
        restore_trainer(trainer, checkpoint)
    if distributed.rank() == 0:
        if not (path / EXAMPLES).exists():
            write_file(path / EXAMPLES, save_examples(data.held_out[1]))
        writer.truncate(checkpoint)
    on_start(trainer, path)
    try:
        trainer.fit()
        distributed.barrier()  # the primary process has written its last checkpoint
        return finish(load(path), data, trainer.device)
    except DivergedError as e:
        complete, _ = list_checkpoints(path / CHECKPOINTS)  # none, if the untrained model gives NaN
        last = f"; the last checkpoint in {path} is that of step {complete[-1].step}" if complete else ""
        raise DivergedError(e.message, e.hint + last) from e
    except signals.Stopped as e:
        e.hint = f"step {trainer.global_step} of {trainer.steps} is saved: vaezoo train --resume {path}"
        raise
    except StorageError as e:
        raise StorageError(e.message, f"{e.hint}; then vaezoo train --resume {path}") from e
    except Exception as e:
        raise_as_plugin_error(registration, "trained", e)
        raise


def init_model(setup: Setup, *, weights: bool) -> None:
    """Lets a model initialise weights from the training split, and its prior take what it needs of the examples.

    Args:
        setup: The model and the data.
        weights: Whether weights are initialised. Those of another run stay as they are.

    Raises:
        PluginError: If `init_from_data` of a plugin's model raises an unexpected error.
    """
    try:
        if weights:
            setup.vae.likelihood.init_from_data(setup.data.train)
            setup.vae.init_from_data(setup.data.train)
        setup.vae.prior.init_from_data(setup.data.train)
    except Exception as e:
        raise_as_plugin_error(setup.registration, "initialised from the data", e)
        raise


def raise_as_plugin_error(registration: Registration, what: str, error: Exception) -> None:
    """Raises PluginError for an unexpected error in a plugin's model. Such a model may raise anything."""
    if not (registration.built_in or distributed.world_size() > 1 or isinstance(error, VaezooError | OSError)):
        raise registration.failure(what, error) from error


def restore_trainer(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Restores a trainer from a checkpoint.

    Raises:
        InputError: If the checkpoint does not fit the trainer.
    """
    checkpoint.restore(trainer.vae, "model")
    checkpoint.restore(trainer.objective, "objective")
    try:
        if checkpoint.counters["global_step"] != checkpoint.step:
            raise ValueError(f"it counts {safe_repr(checkpoint.counters['global_step'])} steps")
        trainer.restore(checkpoint.counters, partial(checkpoint.read, "training"))
    except (KeyError, ValueError, TypeError, OverflowError) as e:
        raise InputError(f"{checkpoint.path} does not hold the state of a training: {e}", "train again") from e


def finish(run: Run, data: Dataset, device: torch.device) -> Run:
    """Evaluates a run on the held-out split, writes result.json, and returns the run with it."""
    name, split = data.held_out
    split = to_device_if_fits(split, device)
    vae, objective = run.vae.to(device), run.objective.to(device)
    metrics = evaluate(vae, objective, split, run.training, train_size=len(data.train))
    metrics |= reconstruction_error(run.vae, split, run.training.batch_size // run.training.grad_accum_steps)
    run.vae.cpu()
    run.objective.cpu()
    result = {"split": name, "step": run.checkpoint.step, "metrics": metrics}
    run = replace(run, result=result, dataset=data if run.source is None else None)
    if distributed.rank() == 0:
        write_json(run.path / RESULT, result)
        if run.only_got_worse:
            warnings.warn(ONLY_WORSE, VaezooWarning, stacklevel=2)
    return run
