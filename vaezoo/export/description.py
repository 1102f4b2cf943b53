"""What an export states about its model: where the weights come from, what was measured on them, what the graphs are.

The manifest holds it, and the model card shows it.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import metadata, version
from typing import cast

from vaezoo.core.option_values import json_value
from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec
from vaezoo.errors import PluginError, VaezooError, one_line
from vaezoo.examples import Data, load_examples, require_model
from vaezoo.export.config import ExportConfig
from vaezoo.export.folding import FoldedVAE
from vaezoo.export.graphs import Graph, mode_name
from vaezoo.runtime import OnnxVAE
from vaezoo.runtime.manifest import (
    SCHEMA,
    AutoregressiveEntry,
    CheckpointEntry,
    DataEntry,
    Description,
    GraphName,
    LevelEntry,
    QualityEntry,
)
from vaezoo.training.checkpoint import not_finite, pack
from vaezoo.training.run import Run, load
from vaezoo.training.run_files import EXAMPLE_COUNT, metrics_of, read_evaluations
from vaezoo.vae import VAE, LatentLevel, is_standard_normal

TERMS = {"-ELBO": ("elbo", -1), "reconstruction": ("reconstruction", 1), "KL": ("kl", 1)}  # of a training


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model to export. For the attributes that are not described here see `Description`.

    Attributes:
        vae: The model.
        data: The data that it was made for.
        name: Name of the folder that is written by default.
        distribution: The package that the model comes from. None for a module of a program.
        imported: The class that the weights were imported from. None if they were trained.
        first_imported: As in `Run`.
        examples: Real examples, or None.
    """

    vae: VAE
    data: DataSpec
    name: str
    model: str
    distribution: str | None
    options: Mapping[str, object]
    checkpoint: CheckpointEntry
    examples: Batch | None
    binarize: str
    weights_license: str | None
    finished: bool | None
    quality: Sequence[QualityEntry]
    imported: str | None = None
    first_imported: str = ""


def find_source(model: Run | VAE | str | os.PathLike[str], data: Data | None) -> Source:
    """Returns the model that a program or a user means; `export_onnx` describes arguments and errors."""
    if isinstance(model, str | os.PathLike):
        model = load(model)
    require_model(model)
    if isinstance(model, OnnxVAE):
        raise VaezooError(f"{model.source.folder} is an export already", "give the run that it was made of")
    examples = None if data is None else load_examples(model, data).split.subsample(EXAMPLE_COUNT).batch(slice(None))
    return from_run(model, examples) if isinstance(model, Run) else from_module(model, examples)


def from_run(run: Run, examples: Batch | None) -> Source:
    """Returns a run with its own examples, or with others."""
    return Source(
        vae=run.vae,
        data=run.data,
        name=run.path.resolve().name,
        model=run.full_name,
        distribution=run.full_name.partition("/")[0],
        options={**run.options, **({} if run.prior_fit is None else run.prior_fit.settings)},
        checkpoint={"step": run.checkpoint.step, "sha256": run.checkpoint.model_sha256},
        examples=run.examples if examples is None else examples,
        binarize=run.training.binarize,
        weights_license=run.weights_license,
        finished=bool(run.result),
        quality=quality_of(run),
        imported=None if run.imported is None else str(run.imported["class"]),
        first_imported=run.first_imported,
    )


def from_module(vae: VAE, examples: Batch | None) -> Source:
    """Returns a module of a program. Its hash is that of a checkpoint with the same weights.

    Raises:
        VaezooError: If a weight is not finite.
    """
    name, weights = type(vae).__name__, vae.state_dict()
    if bad := not_finite(weights):
        raise VaezooError(f"the {name} holds values that are not finite, in {bad}", "train it again")
    return Source(
        vae=vae,
        data=vae.data,
        name=name,
        model=name,
        distribution=None,
        options={},
        checkpoint={"step": None, "sha256": hashlib.sha256(pack(weights)).hexdigest()},
        examples=examples,
        binarize="none",
        weights_license=None,
        finished=None,
        quality=[],
    )


def quality_of(run: Run) -> list[QualityEntry]:
    """Returns what was measured on the weights of a run: by its training, and by `vaezoo eval` since.

    Raises:
        InputError: If a saved evaluation is damaged.
    """
    metrics, split, protocol = run.checkpoint.metrics, "valid", "validation during the training"
    if run.result.get("step") == run.checkpoint.step:
        metrics, split = cast("Mapping[str, float]", run.result["metrics"]), str(run.result["split"])
        protocol = "at the end of the training"
    about = {"unit": "nats", "data": run.data.name, "split": split, "protocol": protocol}
    entries = [
        _quality({"name": name, "value": sign * metrics[key]}, about)
        for name, (key, sign) in TERMS.items()
        if key in metrics
    ]
    for record in read_evaluations(run.path):
        if cast("Mapping[str, object]", record["checkpoint"]).get("sha256") == run.checkpoint.model_sha256:
            for metric in metrics_of(record, run.path):
                if type(metric.get("value")) in (int, float):  # others have a value for each latent dimension
                    entries.append(_quality(metric, record))
    return entries


def _quality(metric: Mapping[str, object], about: Mapping[str, object]) -> QualityEntry:
    """Returns a figure with what is known about it. The file of an evaluation may hold anything."""
    fields = {**about, **metric}
    texts = {key: one_line(str(fields.get(key, ""))) for key in ("name", "unit", "data", "split", "protocol")}
    error = fields.get("error")
    return cast("QualityEntry", {**texts, "value": fields["value"], "error": error if type(error) is float else None})


def describe(source: Source, graphs: Mapping[GraphName, Graph], config: ExportConfig) -> Description:
    """Returns what the graphs are and where they come from. It contains nothing about this machine or the time.

    Args:
        source: The model, in evaluation mode.
        graphs: Its graphs.
        config: How they were written.
    """
    vae, distribution = source.vae, source.distribution
    packages = ("vaezoo", *([] if distribution is None else [distribution]), "torch", "onnx", "onnxscript")
    description: Description = {
        "schema": SCHEMA,
        "model": source.model,
        "options": dict(source.options),
        "data": data_entry(source.data),
        "latent_shape": list(vae.latent_shape),
        "prior": prior_entry(vae, graphs),
        "autoregressive": autoregressive_entry(vae),
        "mode": mode_name(vae),
        "format": config.as_dict(),
        "checkpoint": source.checkpoint,
        "graphs": {name: graph.signature for name, graph in graphs.items()},
        "binarize": source.binarize,
        "license": None if distribution is None else license_of(distribution),
        "weights_license": source.weights_license,
        "finished": source.finished,
        "quality": list(source.quality),
        "versions": {name: version(name) for name in packages},
    }
    if float32 := {name: list(graph.float32) for name, graph in graphs.items() if graph.float32}:
        description["float32"] = float32
    if isinstance(vae, FoldedVAE):
        description["latent_scaling"] = vae.scaling.entry()
    if any(level.codes for level in vae.latent_levels):
        description["latent_levels"] = [level_entry(level) for level in vae.latent_levels]
    if vae.left_out and "encoder" in graphs:
        description["left_out"] = vae.left_out
    if source.imported is not None:
        description["imported"] = source.imported
    if source.first_imported:
        description["first_imported"] = source.first_imported
    return description


def level_entry(level: LatentLevel) -> LevelEntry:
    """Returns the manifest's entry of a level of z.

    Raises:
        PluginError: If its shape does not have so many latents.
    """
    shape = level.shape or (level.latents,)
    if math.prod(shape) != level.latents:
        what = f"level '{level.name}' has {level.latents} latents, and the shape {shape}"
        raise PluginError(what, "declare a shape in latent_levels with so many latents")
    return {"name": level.name, "shape": list(shape), "codes": level.codes}


def data_entry(data: DataSpec) -> DataEntry:
    """Returns the data that a model was made for, as JSON has it."""
    return cast("DataEntry", {name: json_value(value) for name, value in asdict(data).items()})


def license_of(distribution: str) -> str | None:
    """Returns the licence that a package states, or None."""
    fields = metadata(distribution)
    return next((fields[key] for key in ("License-Expression", "License") if key in fields), None)


def autoregressive_entry(vae: VAE) -> AutoregressiveEntry | None:
    """Returns the manifest's entry about how x is drawn id by id, or None if it is not."""
    loop = vae.autoregressive
    if loop is None:
        return None
    entry: AutoregressiveEntry = {"length": loop.length, "end_id": loop.end_id}
    return entry if loop.start_id is None else {**entry, "start_id": loop.start_id}


def prior_entry(vae: VAE, graphs: Mapping[GraphName, Graph]) -> str | None:
    """Returns how z is drawn from an export; see `Description`."""
    if is_standard_normal(vae.prior):
        return "standard-normal"
    if "prior" not in graphs:
        return None
    return "graph" if vae.prior.autoregressive is None else "autoregressive"
