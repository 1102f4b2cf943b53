"""The export folder, written whole or not at all.

exports/conv-vae-digits-1/
    encoder.onnx, decoder.onnx    the graphs
    manifest.json                 what they are, where they come from, how close they are to the model
    README.md                     the same for people
    golden/                       inputs with the model's outputs; see golden.py
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import metadata, version
from pathlib import Path
from typing import Any

import torch

from vaezoo import pretrained
from vaezoo.core.atomic import atomic_dir
from vaezoo.core.json_io import json_bytes
from vaezoo.errors import InputError, StorageError
from vaezoo.export.config import OPSET, DType, ExportConfig
from vaezoo.export.golden import golden_files
from vaezoo.export.graphs import Graph, encoder_outputs, export_graphs
from vaezoo.export.metadata import add_metadata
from vaezoo.export.model_card import model_card
from vaezoo.export.parity import check_parity
from vaezoo.export.tolerance import BATCHES, Parity, runtime_name
from vaezoo.priors.standard_normal import StandardNormal
from vaezoo.runtime.manifest import MANIFEST, SCHEMA, GraphName, is_export, properties, read_manifest
from vaezoo.training.run import Run

EXPORTS = Path("exports")
DERIVED = ("README.md", "samples.png", "reconstructions.png")  # made from the rest


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export wrote.

    Attributes:
        path: The folder.
        manifest: What its manifest.json holds.
        parity: The largest differences from the model.
    """

    path: Path
    manifest: Mapping[str, Any]
    parity: list[Parity]


def export_onnx(
    run: Run,
    out: str | os.PathLike[str] | None = None,
    *,
    opset: int = OPSET,
    dtype: DType = "fp32",
    uint8: bool = False,
) -> ExportResult:
    """Exports a run's model to ONNX, compares the graphs with it, and only then puts them in place.

    Args:
        run: A loaded run.
        out: The folder; by default `exports/` and the run's name. An earlier export there is replaced, with the
            images drawn from it.
        opset: Version of the ONNX operator set.
        dtype: "fp32", or "fp16" for float16 weights and arithmetic between float32 inputs and outputs.
        uint8: Images go in and come out as bytes `(N, H, W, C)`, scaled inside the graphs.

    Raises:
        ParityError: If a graph does not equal the model.
        PluginError: If the model cannot be exported.
        StorageError: If the folder is no earlier export, or holds files of somebody's own, or cannot be written.
        UnsupportedDataError: If uint8 is asked for and the data are no images.
    """
    form = ExportConfig(opset=opset, dtype=dtype, uint8=uint8)
    path = Path(out) if out is not None else EXPORTS / run.path.resolve().name
    if path.exists():
        require_replaceable(path)
    graphs = export_graphs(run.vae, form)
    described = describe(run, graphs, form)
    stamped = add_metadata({part: graph.data for part, graph in graphs.items()}, properties(described))
    graphs = {part: replace(graph, data=stamped[part]) for part, graph in graphs.items()}
    rows, cases = check_parity(run.vae, graphs, form, run.examples)
    files = {f"{part}.onnx": data for part, data in stamped.items()} | golden_files(cases)
    manifest = {
        **described,
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
        },
        "parity": {"runtime": runtime_name(), "batches": BATCHES, "rows": [row.as_dict() for row in rows]},
    }
    with atomic_dir(path.resolve(), replace=True) as work:
        for name, data in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(data)
        (work / "README.md").write_bytes(model_card(manifest).encode())
        (work / MANIFEST).write_bytes(json_bytes(manifest))
    return ExportResult(path, manifest, rows)


def require_replaceable(path: Path) -> None:
    """Raises StorageError unless a folder is an export, and all that it holds came from vaezoo."""
    if not is_export(path):
        raise StorageError(f"{path} is in the way: it exists and is no export", "give another --out")
    try:
        ours = {*read_manifest(path)["files"], MANIFEST, *DERIVED}
    except InputError:  # damaged, or of another version
        ours = {"encoder.onnx", "decoder.onnx", MANIFEST, *DERIVED}
    held = {str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir()}
    if held - ours:
        raise StorageError(
            f"{path} is in the way: it holds {min(held - ours)}, which is of no export",
            "move that, or give another --out",
        )


def describe(run: Run, graphs: Mapping[GraphName, Graph], form: ExportConfig) -> dict[str, Any]:
    """Says what the graphs are and where they come from. Nothing here tells of this machine or of the time."""
    distribution = run.full_name.partition("/")[0]
    with torch.no_grad():
        mode = encoder_outputs(run.vae, torch.zeros(1, *run.data.shape))[1]
    return {
        "schema": SCHEMA,
        "model": run.full_name,
        "options": dict(run.options),
        "data": asdict(run.data),
        "latent_shape": list(run.vae.latent_shape),
        "prior": "standard-normal" if type(run.vae.prior) is StandardNormal else None,
        "mode": mode,
        "format": form.as_dict(),
        "checkpoint": {"step": run.checkpoint.step, "sha256": run.checkpoint.model_sha256},
        "graphs": {part: graph.signature for part, graph in graphs.items()},
        "binarize": run.training.binarize,
        "license": license_of(distribution),
        "weights_license": weights_license_of(run),
        "versions": {name: version(name) for name in ("vaezoo", distribution, "torch", "onnx", "onnxscript")},
    }


def weights_license_of(run: Run) -> str | None:
    """Returns the licence on the card of a pretrained model, or None: other weights are the user's own."""
    return pretrained.read_card(run.path).license if run.path.parent == pretrained.FOLDER else None


def license_of(distribution: str) -> str | None:
    """Returns the licence that a package states, or None."""
    stated = metadata(distribution)
    return next((stated[key] for key in ("License-Expression", "License") if key in stated), None)
