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

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaezoo.core.json_io import read_json
from vaezoo.data.base import Batch, Dataset, DataSource
from vaezoo.data.catalog import DATASETS
from vaezoo.data.labels import repeat_label
from vaezoo.data.load import load_data
from vaezoo.data.spec import DataSpec
from vaezoo.data.tables.load import kinds_of
from vaezoo.data.text.corpus import TextOptions
from vaezoo.errors import InputError, VaezooError
from vaezoo.objectives.base import Objective
from vaezoo.registry import find_model
from vaezoo.training.checkpoint import (
    Checkpoint,
    find_checkpoint,
    list_checkpoints,
)
from vaezoo.training.config import TrainConfig
from vaezoo.training.preflight import as_input_error, check_size, max_checkpoint_bytes
from vaezoo.training.prior_fit import PriorFit, add_prior, check_first_stage
from vaezoo.training.reports import TRIAL_STEPS
from vaezoo.training.run_files import EXAMPLES, RESULT, read_examples, read_result, read_run_record
from vaezoo.training.run_writer import CHECKPOINTS
from vaezoo.vae import VAE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vaezoo.core.coordinates import Resolution
    from vaezoo.evaluation.evaluate import Evaluation
    from vaezoo.evaluation.score import Scores
    from vaezoo.examples import Data
    from vaezoo.export.export import ExportResult

RUNS = Path("runs")
ATTEMPTS = 5  # to read a checkpoint that a training may replace


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
        prior_fit: How the prior was fitted after the training, by `vaezoo.fit_prior`; None for other runs.
        imported: What `vaezoo.import_folder` read the weights from: the class, the hashes of the files, and the config.
            None for a training.
        first_imported: The class that the weights were imported from, with which the training, or one before it, began.
            Empty for other runs.
        dataset: The arrays that the program passed to the training; None in other programs, and for data with a source.
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
    prior_fit: PriorFit | None = None
    imported: Mapping[str, object] | None = None
    first_imported: str = ""
    dataset: Dataset | None = field(default=None, repr=False, compare=False)

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
            VaezooError: If a program passed arrays, the run was imported, or the data cannot be loaded any more.
        """
        if self.dataset is not None:
            return self.dataset
        if self.imported is not None:
            raise VaezooError(f"{self.path} was imported, so it has no data", "name the data: --data FOLDER")
        if self.source is None:
            hint = f"save them as a .npz file, and name it once: vaezoo train --resume {self.path} --data FILE"
            raise VaezooError(f"{self.path} was trained on arrays of a program", hint)
        return load_source(self.source, self.data, data_dir)

    def sample(
        self,
        count: int = 64,
        *,
        seed: int = 0,
        y: NDArray[Any] | None = None,
        label: int | str | None = None,
        resolution: Resolution | None = None,
    ) -> NDArray[Any]:
        """Returns data drawn from the prior: the means of p(x|z), `(count, *shape)`, in the units of the data.

        Args:
            count: How many.
            seed: Seed of the latents. The caller's random state does not change.
            y: Labels `(count,)` or `(count, factors)` for a model that is given labels; by default all labels in turn.
            label: The label of all of them instead, or the name of its class. Several labels have commas between.
            resolution: Size of the images of a decoder that takes coordinates, such as 1024 or (768, 1024).

        Raises:
            VaezooError: If there is no such label, or a resolution and no such decoder.
        """
        from vaezoo.evaluation.outputs import sample

        if label is not None:
            y = repeat_label(str(label), count, self.data.classes, self.data.names_by_label, self.data.name)
        return sample(self, count, seed=seed, y=y, resolution=resolution)

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
        resolution: Resolution | None = None,
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
            resolution: As in `sample`, for samples, reconstructions and interpolation.

        Raises:
            VaezooError: If there is no such kind, or it does not use one of the arguments.
            UnsupportedDataError: If the kind is for other data than those of the run.
        """
        from vaezoo.plots.kinds import draw

        chosen = {
            "count": count,
            "seed": seed,
            "dims": dims,
            "label": label,
            "factor": factor,
            "resolution": resolution,
        }
        return draw(kind, self, out, {name: value for name, value in chosen.items() if value is not None})

    def encode(self, data: Data | None = None, *, limit: int | None = None) -> dict[str, NDArray[Any]]:
        """Returns the fields of q(z|x) of examples, as `vaezoo.encode` does. The default is the held-out part."""
        from vaezoo.evaluation.outputs import encode

        return encode(self, data, limit=limit)

    def reconstruct(
        self,
        data: Data | None = None,
        *,
        draw: bool = False,
        seed: int = 0,
        limit: int | None = None,
        resolution: Resolution | None = None,
        impute: bool = False,
    ) -> NDArray[Any]:
        """Returns reconstructions of examples, as `vaezoo.reconstruct` does. The default is the held-out part."""
        from vaezoo.evaluation.outputs import reconstruct

        return reconstruct(self, data, draw=draw, seed=seed, limit=limit, resolution=resolution, impute=impute)

    def score(self, data: Data | None = None, **options: Any) -> Scores:
        """Scores each example, as `vaezoo.score` does, which describes the options and errors."""
        from vaezoo.evaluation.score import score

        return score(self, data, **options)

    def evaluate(self, data: Data | None = None, **options: Any) -> Evaluation:
        """Evaluates the model, as `vaezoo.evaluate` does, which describes the options and errors."""
        from vaezoo.evaluation.evaluate import evaluate

        return evaluate(self, data, **options)

    def export(self, out: str | os.PathLike[str] | None = None, **options: Any) -> ExportResult:
        """Exports the model to ONNX, as `vaezoo.export_onnx` does, which describes the options and errors."""
        from vaezoo.export.export import export_onnx

        return export_onnx(self, out, **options)


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
        kind=source.kind,
        time_column=source.time_column,
        window=source.window,
        stride=source.stride,
        sample_rate=source.sample_rate,
        layer=source.layer,
        label_column=source.label_column,
        label_pattern=source.label_pattern,
        columns=None if source.scale == "unit" else kinds_of(spec),
        text=text_options(source, spec),
    )


def text_options(source: DataSource, spec: DataSpec) -> TextOptions | None:
    """Returns how the texts of a run become its examples, with its own tokenizer. None for other data.

    Raises:
        VaezooError: If the record is damaged.
    """
    if not spec.tokenizer or source.data in DATASETS:
        return None
    return TextOptions(
        tokenizer=spec.make_tokenizer(),
        length=spec.shape[0],
        column=source.column,
        on_long_text=source.on_long_text,
    )


def load(path: str | os.PathLike[str], checkpoint: str | int = "best", *, fp16: bool = False) -> Run:
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
        check_size(path, registration, record.options, record.data, prior=record.prior, fp16=fp16)
        _, vae, objective = registration.build(record.options, record.data)
        if record.prior is not None:
            objective = add_prior(vae, record.prior)
    max_bytes = max_checkpoint_bytes(vae, objective)
    for attempt in range(ATTEMPTS):
        chosen = find_checkpoint(path / CHECKPOINTS, checkpoint, objective.monitor, max_bytes)
        try:
            chosen.restore(vae, "model", fp16=fp16)
            chosen.restore(objective, "objective", fp16=fp16)
            break
        except InputError as e:
            if chosen.path.exists():
                raise
            # A training that goes on has replaced the checkpoint by a better one.
            if attempt == ATTEMPTS - 1:
                raise InputError(f"the checkpoints of {path} are replaced while they are read", "try again") from e
    if record.prior is not None:
        check_first_stage(path, vae, record.prior)
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
        prior_fit=record.prior,
        imported=record.imported,
        first_imported=record.first_imported,
    )


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
