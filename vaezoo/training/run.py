"""Run folders: what a training leaves behind, and `train`, which makes one from names and settings.

runs/conv-vae-digits-1/
    run.json              model, options, data, settings, versions: all that is needed to load or repeat the run
    examples.safetensors  some held-out examples: what exports are compared on, without the data set
    metrics.jsonl         one line a report: split, step, epoch, learning rate, metrics
    checkpoints/          see checkpoint.py
    result.json           metrics of the best checkpoint on the test part, written at the end
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from vaezoo import ranks
from vaezoo.data.base import Dataset, DataSource, DataSpec, Split
from vaezoo.data.load import load_data
from vaezoo.errors import DivergedError, InputError, StorageError, VaezooError
from vaezoo.files import read_json, storage_errors, write_file, write_json
from vaezoo.objectives import Objective
from vaezoo.registry import find_model
from vaezoo.spec import config_json, configure
from vaezoo.training.chance import derive_seed
from vaezoo.training.checkpoint import Checkpoint, find_checkpoint, prune, save_checkpoint
from vaezoo.training.config import TrainConfig
from vaezoo.training.loading import settle
from vaezoo.training.trainer import Report, Trainer, check_device, check_fit, evaluate, pick_device
from vaezoo.vae import VAE

SCHEMA = 1
RUNS = Path("runs")
EXAMPLES = "examples.safetensors"
EXAMPLE_COUNT = 64


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
    vae: VAE
    objective: Objective
    examples: Tensor | None
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
        source = self.source
        return load_data(
            source.data,
            data_dir=data_dir or source.data_dir,
            size=source.size,
            likelihood=source.likelihood,
            on_bad_image=source.on_bad_image,
        )


def train(
    model: str,
    data: Dataset | str | os.PathLike[str] = "digits",
    *,
    options: Mapping[str, object] | None = None,
    config: TrainConfig | None = None,
    out: str | os.PathLike[str] | None = None,
    on_report: Callable[[Report], None] = lambda report: None,
    on_start: Callable[[Trainer, Path], None] = lambda trainer, path: None,
) -> Run:
    """Trains a model and returns the finished run, with the best checkpoint's weights.

    Started by torchrun in several processes, these train together; the first one writes the run folder.

    Args:
        model: A registered model.
        data: A data set, or its name or path.
        options: The model's options that differ from their defaults.
        config: The settings.
        out: The run folder; by default the next free `runs/MODEL-DATA-N`.
        on_report: Called with each report; with several ranks on the first alone.
        on_start: Called with the trainer and the run folder before the first step, on each rank.

    Raises:
        VaezooError: If a name, an option or a setting is wrong; nothing has been written then.
        StorageError: If the run folder is in the way or cannot be written.
        DivergedError: If a loss or gradient becomes infinite or NaN; earlier checkpoints are whole.
    """
    config = config or TrainConfig()
    device = pick_device(config.device)
    check_device(device, config)
    registration = find_model(model)
    registration.load()  # a broken model is told before the data are loaded
    data = data if isinstance(data, Dataset) else load_data(data)
    with torch.random.fork_rng([]):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        model_config, vae, objective = registration.build(options or {}, data.spec)
    with ranks.together(device):
        check_fit(vae, objective, data, config)
        config = config.decided(len(data.train))
        description = {
            "schema": SCHEMA,
            "model": registration.full_name,
            "options": config_json(model_config),
            "data": asdict(data.spec),
            "source": data.source and asdict(data.source),
            "training": asdict(config),
            "ranks": ranks.size(),
            "versions": {
                "vaezoo": version("vaezoo"),
                registration.distribution: registration.version,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }
        path = start_run(out, f"{registration.name}-{data.spec.name}", description, data)

        def on_checkpoint(step: int, metrics: Mapping[str, float]) -> None:
            if ranks.number() == 0:
                save_checkpoint(path / "checkpoints", vae, objective, step, metrics)
                prune(path / "checkpoints", objective.monitor)

        def report_and_log(report: Report) -> None:
            if ranks.number() == 0:
                append_metrics(path / "metrics.jsonl", report)
                on_report(report)

        trainer = Trainer(vae, objective, data, config, on_report=report_and_log, on_checkpoint=on_checkpoint)
        on_start(trainer, path)
        try:
            trainer.fit()
        except DivergedError as e:
            last = find_checkpoint(path / "checkpoints", "last", None)
            hint = f"{e.hint}; the last checkpoint in {path} is that of step {last.step}"
            raise DivergedError(e.message, hint) from e
        ranks.wait()  # rank 0 has written its last checkpoint
        return finish(load(path), data, device)


def finish(run: Run, data: Dataset, device: torch.device) -> Run:
    """Evaluates a run on the held-out part, writes result.json, and returns the run with it."""
    split, part = data.held_out
    metrics = evaluate(run.vae.to(device), run.objective.to(device), settle(part, device), run.training)
    run.vae.cpu()
    run.objective.cpu()
    result = {"split": split, "step": run.checkpoint.step, "metrics": metrics}
    if ranks.number() == 0:
        write_json(run.path / "result.json", result)
    return replace(run, result=result)


def load(path: str | os.PathLike[str], checkpoint: str = "best") -> Run:
    """Loads a run.

    Args:
        path: The run folder.
        checkpoint: "best" on the validation part, "last", or a step.

    Raises:
        InputError: If the folder is no run, or is damaged, or has no such checkpoint.
        VaezooError: If its model is not installed.
    """
    path = Path(path)
    if not (path / "run.json").is_file():
        raise InputError(f"{path} is no run folder", "give a folder that 'vaezoo train' wrote, such as runs/...")
    described = read_json(path / "run.json")
    if isinstance(described.get("schema"), int) and described["schema"] != SCHEMA:
        raise InputError(f"{path} has schema {described.get('schema')}; this version reads {SCHEMA}", "update vaezoo")
    try:
        name, options = str(described["model"]), _mapping(described["options"])
        data = DataSpec(**_tuples(described["data"]))  # type: ignore[arg-type]
        source = DataSource(**_mapping(described["source"])) if described["source"] else None  # type: ignore[arg-type]
        training = configure(TrainConfig(), _mapping(described["training"]))
    except (KeyError, TypeError, VaezooError) as e:
        raise InputError(f"{path / 'run.json'} is damaged: {e}", "restore the file, or train again") from e
    _, vae, objective = find_model(name).build(options, data)
    found = find_checkpoint(path / "checkpoints", checkpoint, objective.monitor)
    found.restore(vae, "model")
    found.restore(objective, "objective")
    result = path / "result.json"
    return Run(
        path=path,
        model=name.rpartition("/")[2],
        full_name=find_model(name).full_name,
        options=options,
        data=data,
        source=source,
        training=training,
        checkpoint=found,
        vae=vae.eval(),
        objective=objective.eval(),
        examples=read_examples(path / EXAMPLES, data),
        result=read_json(result) if result.exists() else {},
    )


def read_examples(file: Path, data: DataSpec) -> Tensor | None:
    """Reads the examples that a run keeps, `(N, *shape)` in [0, 1]; None where there is no such file.

    Raises:
        InputError: If the file is damaged.
    """
    if not file.exists():
        return None
    try:
        examples = load_tensors(file.read_bytes())["x"]
    except (OSError, SafetensorError, KeyError) as e:
        raise InputError(f"{file} is damaged: {e}", "delete it: exports are then compared on noise alone") from e
    if tuple(examples.shape[1:]) != data.shape or not len(examples):
        raise InputError(f"{file} is damaged: shape {tuple(examples.shape)}", "delete it")
    return Split(examples, None).batch(slice(None)).x


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
    raise InputError(f"{what} in {folder}/", f"train one first: vaezoo train {model or 'conv-vae'}")


def next_run(folder: Path, stem: str) -> Path:
    """Returns the first of `folder/stem-1`, `folder/stem-2` ... that is free."""
    number = 1
    while (folder / f"{stem}-{number}").exists():
        number += 1
    return folder / f"{stem}-{number}"


def start_run(out: str | os.PathLike[str] | None, stem: str, description: Mapping[str, object], data: Dataset) -> Path:
    """Makes a run folder with its run.json and examples, rank 0 for all ranks, and returns it.

    Raises:
        StorageError: If there is a folder that is not empty, or it cannot be written, or a rank does not see it.
    """
    path = Path(ranks.agree(lambda: str(next_run(RUNS, stem) if out is None else out)))
    if ranks.number() == 0:
        with storage_errors(str(path)):
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise StorageError(f"{path} is in the way: it exists and is not empty", "give another --out")
            path.mkdir(parents=True, exist_ok=True)
        write_json(path / "run.json", description)
        write_file(path / EXAMPLES, save_tensors({"x": data.held_out[1].spread(EXAMPLE_COUNT).x}))
    ranks.wait()
    if not (path / "run.json").exists():
        raise StorageError(f"rank {ranks.number()} does not see {path}", "give an --out on a disk that all share")
    return path


def append_metrics(file: Path, report: Report) -> None:
    """Adds a report to metrics.jsonl. No times stand there: the same run writes the same bytes."""
    line = {"split": report.split, "step": report.step, "epoch": report.epoch, "lr": report.lr, **report.metrics}
    with storage_errors(str(file)), file.open("a") as f:
        f.write(json.dumps(line) + "\n")


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is no object")
    return value


def _tuples(value: object) -> dict[str, object]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in _mapping(value).items()}
