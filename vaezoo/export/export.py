"""Write an export folder atomically.

exports/conv-vae-digits-1/
    encoder.onnx, decoder.onnx    the graphs; also prior.onnx, if z is not standard normal noise
    manifest.json                 what the graphs are, where they come from, and the largest differences from the model
    README.md                     the model card, made from the manifest
    golden/                       inputs with the model's outputs; see golden.py
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import metadata, version
from pathlib import Path
from typing import cast

from vaezoo.core.atomic import atomic_dir
from vaezoo.core.json_io import json_bytes
from vaezoo.core.options import json_value
from vaezoo.data.base import DataSpec
from vaezoo.errors import InputError, StorageError, VaezooError
from vaezoo.export.config import OPSET, DType, ExportConfig
from vaezoo.export.golden import golden_files
from vaezoo.export.graphs import Graph, export_graphs, mode_name
from vaezoo.export.metadata import add_metadata
from vaezoo.export.model_card import model_card
from vaezoo.export.parity import check_parity
from vaezoo.export.quantize import check_suitable, halves, quantize_graphs
from vaezoo.export.tolerance import BATCHES, Parity, runtime_name, stated_tolerance
from vaezoo.runtime.manifest import (
    MANIFEST,
    SCHEMA,
    AutoregressiveEntry,
    DataEntry,
    Description,
    GraphName,
    Manifest,
    common_metadata,
    is_export,
    read_manifest,
)
from vaezoo.training.run import Run, load
from vaezoo.vae import VAE, is_standard_normal

EXPORTS = Path("exports")
DERIVED_FILES = ("README.md", "samples.png", "reconstructions.png")  # may be replaced: made from the other files


@dataclass(frozen=True, slots=True)
class ExportResult:
    """A written export.

    Attributes:
        path: The folder.
        manifest: The content of its manifest.json.
        parity: The largest differences from the model.
    """

    path: Path
    manifest: Manifest
    parity: list[Parity]


def export_onnx(
    run: Run | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    opset: int = OPSET,
    dtype: DType = "fp32",
    uint8: bool = False,
    parts: Sequence[GraphName] | None = None,
) -> ExportResult:
    """Exports a run's model to ONNX. Nothing is written unless the graphs match the model.

    Args:
        run: A loaded run, or its folder.
        out: The folder, by default `exports/` and the run's name. An earlier export there is replaced, together with
            the images drawn from it.
        opset: Version of the ONNX operator set.
        dtype: Of weights and arithmetic between float32 inputs and outputs: "fp32", "fp16", or "int8", calibrated on
            held-out examples of the run.
        uint8: Whether images are uint8 `(N, H, W, C)`, scaled inside the graphs.
        parts: Names of the graphs to write, such as `["decoder"]`. By default all that the model has.

    Raises:
        ParityError: If a graph differs from the model.
        PluginError: If the model cannot be exported.
        StorageError: If the folder is not an earlier export, contains other files, or cannot be written.
        UnsupportedDataError: If uint8 is set and the data are not images.
        VaezooError: If the model has no such part, has an operator that the opset lacks, or is not suitable for int8.
    """
    run = require_run(run)
    config = ExportConfig(opset=opset, dtype=dtype, uint8=uint8)
    path = Path(out) if out is not None else EXPORTS / run.path.resolve().name
    if path.exists():
        check_replaceable(path)
    examples = run.examples
    if config.dtype == "int8":
        calibration, examples = halves(check_suitable(run.vae, examples))
    graphs = export_graphs(run.vae, config, parts)
    if config.dtype == "int8":
        graphs = quantize_graphs(run.vae, graphs, config, calibration)
    description = describe(run, graphs, config)
    onnx_files = add_metadata({name: graph.data for name, graph in graphs.items()}, common_metadata(description))
    # The gate runs on the bytes that will be written.
    graphs = {name: replace(graph, data=onnx_files[name]) for name, graph in graphs.items()}
    rows, cases = check_parity(run.vae, graphs, config, examples)
    files = {f"{name}.onnx": data for name, data in onnx_files.items()} | golden_files(cases)
    manifest: Manifest = {
        **description,
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
        },
        "parity": {
            "runtime": runtime_name(),
            "batches": list(BATCHES),
            "tolerance": stated_tolerance(config.dtype),
            "rows": [row.as_dict() for row in rows],
        },
    }
    with atomic_dir(path.resolve(), replace=True) as work:
        for name, data in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(data)
        (work / "README.md").write_bytes(model_card(manifest).encode())
        (work / MANIFEST).write_bytes(json_bytes(manifest))
    return ExportResult(path, manifest, rows)


def require_run(run: object) -> Run:
    """Returns a run, loaded if its folder is given. Raises VaezooError for anything else."""
    if isinstance(run, str | os.PathLike):
        return load(run)
    if not isinstance(run, Run):
        what = f"export_onnx takes a run, not a {type(run).__name__}"
        raise VaezooError(
            what, "pass what vaezoo.train or vaezoo.load returned; docs/plugins.md makes runs of a module"
        )
    return run


def check_replaceable(path: Path) -> None:
    """Raises StorageError unless a folder is an export and contains only files that vaezoo wrote."""
    if not is_export(path):
        raise StorageError(f"{path} exists and is not an export", "give another --out")
    known = {"encoder.onnx", "decoder.onnx", "prior.onnx", MANIFEST, *DERIVED_FILES}
    with contextlib.suppress(InputError):  # a damaged manifest, or one of another schema, does not list its files
        known |= read_manifest(path)["files"].keys()
    present = {file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()}
    if foreign := present - known:
        raise StorageError(
            f"{path} contains {min(foreign)}, which does not belong to an export", "move it, or give another --out"
        )


def describe(run: Run, graphs: Mapping[GraphName, Graph], config: ExportConfig) -> Description:
    """Returns what the graphs are and where they come from. It contains nothing about this machine or the time."""
    distribution = run.full_name.partition("/")[0]
    return {
        "schema": SCHEMA,
        "model": run.full_name,
        "options": {**run.options, **({} if run.prior_fit is None else run.prior_fit.settings)},
        "data": data_entry(run.data),
        "latent_shape": list(run.vae.latent_shape),
        "prior": prior_entry(run.vae, graphs),
        "autoregressive": autoregressive_entry(run.vae),
        "mode": mode_name(run.vae),
        "format": config.as_dict(),
        "checkpoint": {"step": run.checkpoint.step, "sha256": run.checkpoint.model_sha256},
        "graphs": {name: graph.signature for name, graph in graphs.items()},
        "binarize": run.training.binarize,
        "license": license_of(distribution),
        "weights_license": run.weights_license,
        "versions": {name: version(name) for name in ("vaezoo", distribution, "torch", "onnx", "onnxscript")},
    }


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
    return None if loop is None else {"length": loop.length, "end_id": loop.end_id}


def prior_entry(vae: VAE, graphs: Mapping[GraphName, Graph]) -> str | None:
    """Returns how z is drawn from an export; see `Description`."""
    if is_standard_normal(vae.prior):
        return "standard-normal"
    if "prior" not in graphs:
        return None
    return "graph" if vae.prior.autoregressive is None else "autoregressive"
