"""Run folders: the results of a training.

runs/conv-vae-digits-1/
    run.json              model, options, data, settings, versions: enough to load or repeat the run
    examples.safetensors  some held-out examples, on which exports are compared without the data set
    metrics.jsonl         one line per report: split, step, epoch, learning rate, metrics
    metrics.csv           the same as a table, with `log_csv`
    samples/              grids of samples during the training, with `samples_every`
    checkpoints/          see checkpoint.py
    eval/                 what `vaezoo eval` measured
    result.json           metrics of the best checkpoint on the test split, written at the end
    .lock                 held by the process that trains here
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from safetensors.torch import save as save_tensors

from vaezoo.core.atomic import read_file
from vaezoo.core.json_io import check_schema, read_json
from vaezoo.core.options import configure, construct
from vaezoo.data.base import Batch, Dataset, DataSource, DataSpec, Split, TensorSplit
from vaezoo.data.labels import find_labels
from vaezoo.data.load import load_data
from vaezoo.errors import InputError, VaezooError, format_error, safe_repr, with_hint
from vaezoo.objectives.base import Objective
from vaezoo.registry import find_model
from vaezoo.training.checkpoint import (
    Checkpoint,
    find_checkpoint,
    list_checkpoints,
    parse_metrics,
    unpack,
)
from vaezoo.training.config import TrainConfig
from vaezoo.training.preflight import as_input_error, check_size, max_checkpoint_bytes
from vaezoo.training.reports import TRIAL_STEPS
from vaezoo.training.run_writer import CHECKPOINTS
from vaezoo.vae import VAE, check_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vaezoo.export.export import ExportResult

SCHEMA = 3
RUNS = Path("runs")
EXAMPLES = "examples.safetensors"
RESULT = "result.json"
EXAMPLE_COUNT = 64
MAX_EXAMPLES_BYTES = 1 << 30  # 64 of the largest images that vaezoo reads have 0.8 GB in float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A training with the weights of one of its checkpoints.

    Attributes:
        path: The run folder.
        model: Name of the model.
        full_name: The same as `distribution/name`.
        options: All options of the model.
        data: The data that the model was built for.
        source: How to load the data again; None if a program passed arrays.
        training: The settings.
        checkpoint: The checkpoint that holds the weights.
        vae: The model with these weights, in evaluation mode, on the CPU.
        objective: Its objective, likewise.
        examples: Some held-out examples with their labels; None if the run keeps none.
        result: Name of the held-out split and metrics on it; empty while the training is unfinished.
        weights_license: The licence of the weights, which pretrained models state; None for other runs.
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
    examples: Batch | None = field(repr=False)
    result: Mapping[str, object]
    weights_license: str | None = None

    @property
    def only_got_worse(self) -> bool:
        """Whether a finished training found no checkpoint better than that of step 0, before the training.

        A trial of fewer than 20 steps is not judged.
        """
        if self.result.get("step") != 0:
            return False
        complete, _ = list_checkpoints(self.path / CHECKPOINTS, hashed=False)
        return bool(complete) and complete[-1].step >= TRIAL_STEPS

    def load_data(self, data_dir: str | None = None) -> Dataset:
        """Loads the data set that the run was trained on.

        Args:
            data_dir: The folder of the standard data sets, if it has moved since the training.

        Raises:
            VaezooError: If a program passed arrays, or the data cannot be loaded any more.
        """
        if self.source is None:
            raise VaezooError(f"{self.path} was trained on arrays of a program", "name a data set with --data")
        return load_source(self.source, self.data, data_dir)

    def sample(
        self, count: int = 64, *, seed: int = 0, y: NDArray[Any] | None = None, label: int | str | None = None
    ) -> NDArray[Any]:
        """Returns data drawn from the prior: the means of p(x|z), `(count, *shape)`, in the units of the data.

        Args:
            count: How many.
            seed: Seed of the latents. The caller's random state does not change.
            y: Labels `(count,)` or `(count, factors)` for a model that is given labels; by default all labels in turn.
            label: The label of all of them instead, or the name of its class.

        Raises:
            VaezooError: If there is no such label.
        """
        from vaezoo.evaluation.outputs import sample

        if label is not None:
            number = find_labels(str(label), self.data.classes, self.data.class_names, self.data.name)
            y = torch.tensor(number).repeat(count, 1).squeeze(1).numpy()
        return sample(self, count, seed=seed, y=y)

    def plot(
        self,
        kind: str,
        out: str | os.PathLike[str] | None = None,
        *,
        count: int | None = None,
        seed: int | None = None,
        dims: Sequence[int] | None = None,
        label: int | str | None = None,
        factor: int | None = None,
    ) -> list[Path]:
        """Draws what the model has learnt, as `vaezoo plot` does, and returns the files.

        Args:
            kind: As in `vaezoo plot --kind`, such as "traversals" or "learning-curves".
            out: The file, by default `KIND.png` in the run folder.
            count: Number of images or examples, as -n.
            seed: Seed of latents, or of the choice of held-out images.
            dims: Latent dimensions of traversals.
            label: Label of the attribute vector, or the name of its class.
            factor: Index of the label, if each example has several.

        Raises:
            VaezooError: If there is no such kind, or it does not use one of the arguments.
            UnsupportedDataError: If the kind is for other data than those of the run.
        """
        from vaezoo_cli.plots.kinds import draw

        chosen = {"count": count, "seed": seed, "dims": dims, "label": label, "factor": factor}
        return draw(kind, self, out, {name: value for name, value in chosen.items() if value is not None})

    def export(
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        opset: int | None = None,
        dtype: Literal["fp32", "fp16"] = "fp32",
        uint8: bool = False,
    ) -> ExportResult:
        """Exports the model to ONNX, as `vaezoo.export_onnx` does, which describes arguments and errors."""
        from vaezoo.export.config import OPSET
        from vaezoo.export.export import export_onnx

        return export_onnx(self, out, opset=OPSET if opset is None else opset, dtype=dtype, uint8=uint8)


def load_source(source: DataSource, spec: DataSpec, data_dir: str | None = None, stream: bool | None = None) -> Dataset:
    """Loads a data set again, with the likelihood and the scaling that `spec` records; raises as `load_data` does.

    Neither is chosen or fitted again. Another machine might round the scaling differently, and another version might
    have another default likelihood.
    """
    return load_data(
        source.data,
        data_dir=data_dir or source.data_dir,
        image_size=source.image_size,
        likelihood=spec.likelihood,
        stream=stream,
        on_bad_image=source.on_bad_image,
        channels=source.channels,
        scale="unit" if source.scale == "unit" else spec.scaling,
    )


class RunRecord(NamedTuple):
    """The contents of run.json. For attributes that are not described here see Run.

    Attributes:
        world_size: Number of processes.
        device: Kind of device, such as "cpu" or "cuda".
        torch: Version of PyTorch.
        fingerprint: Identifies the data; see `fingerprint`.
        init_from: Whether the training started with the weights of another run.
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


def read_run_record(path: Path) -> RunRecord:
    """Reads a run folder's run.json.

    Raises:
        InputError: If the folder is not a run, or the file is damaged or of an earlier version.
    """
    file = path / "run.json"
    if not file.is_file():
        raise InputError(f"{path} is not a run folder", "give a folder that 'vaezoo train' wrote, such as runs/...")
    record = read_json(file)
    check_schema(file, record, SCHEMA)
    try:
        source, license_text = record["source"], record.get("weights_license")
        return RunRecord(
            model=_text(record["model"]),
            options=_mapping(record["options"]),
            data=construct(DataSpec, _mapping(record["data"])),
            source=None if source is None else construct(DataSource, _mapping(source)),
            training=configure(TrainConfig(), _mapping(record["training"])),
            world_size=_integer(record["world_size"]),
            device=_text(record["device"]),
            torch=_text(_mapping(record["versions"])["torch"]),
            fingerprint=_text(record["fingerprint"]),
            weights_license=None if license_text is None else _text(license_text),
            init_from=record.get("init_from") is not None,
        )
    except (KeyError, TypeError) as e:
        raise InputError(f"{file} is damaged: {format_error(e)}", "restore the file, or train again") from e
    except VaezooError as e:
        raise InputError(f"{file} is damaged: {e.message}", e.hint) from e


def load(path: str | os.PathLike[str], checkpoint: str = "best", *, fp16: bool = False) -> Run:
    """Loads a run.

    Args:
        path: The run folder.
        checkpoint: "best" on the validation split, "last", or a step.
        fp16: The weights are stored in float16, as those of pretrained models.

    Raises:
        InputError: If the folder is not a run, or is damaged, or has no such checkpoint.
        VaezooError: If its model is not installed.
    """
    path = Path(path)
    record = read_run_record(path)
    registration = find_model(record.model)
    with as_input_error(path):
        check_size(path, registration, record.options, record.data, fp16=fp16)
        _, vae, objective = registration.build(record.options, record.data)
    max_bytes = max_checkpoint_bytes(vae, objective)
    chosen = find_checkpoint(path / CHECKPOINTS, checkpoint, objective.monitor, max_bytes)
    chosen.restore(vae, "model", fp16=fp16)
    chosen.restore(objective, "objective", fp16=fp16)
    return Run(
        path=path,
        model=registration.name,
        full_name=registration.full_name,
        options=record.options,
        data=record.data,
        source=record.source,
        training=record.training,
        checkpoint=chosen,
        vae=vae.eval(),
        objective=objective.eval(),
        examples=read_examples(path / EXAMPLES, record.data),
        result=read_result(path / RESULT),
        weights_license=record.weights_license,
    )


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
    hint = f"train one first: vaezoo train {model or 'conv-vae'}; or use a model that 'vaezoo pretrained' lists"
    raise InputError(f"{what} in {folder}/", hint)


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"{safe_repr(value)} is not an object")
    return value


def _integer(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{safe_repr(value)} is not an integer")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{safe_repr(value)} is not a string")
    return value
