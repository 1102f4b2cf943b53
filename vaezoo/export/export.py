"""Write an export folder atomically.

exports/conv-vae-digits-1/
    encoder.onnx, decoder.onnx    the graphs; also prior.onnx, if z is not standard normal noise
    manifest.json                 what the graphs are, where they come from, and the largest differences from the model
    README.md                     the model card, made from the manifest
    golden/                       inputs with the model's outputs; see golden.py
    latents.json                  codes of some examples, the KL of each latent, attribute vectors; see latents.py
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vaezoo.core.atomic import atomic_dir, sha256
from vaezoo.core.device import on_device
from vaezoo.core.json_io import json_bytes
from vaezoo.errors import InputError, StorageError, VaezooError, safe_repr
from vaezoo.examples import Data
from vaezoo.export.cases import batches_of
from vaezoo.export.config import OPSET, DType, ExportConfig
from vaezoo.export.description import Source, describe, find_source
from vaezoo.export.folding import FoldedVAE, scaling_of_latents
from vaezoo.export.golden import golden_files
from vaezoo.export.graphs import export_graphs
from vaezoo.export.latents import latent_files
from vaezoo.export.metadata import add_metadata
from vaezoo.export.model_card import model_card
from vaezoo.export.parity import check_parity
from vaezoo.export.quantize import check_suitable, halves, quantize_graphs
from vaezoo.export.tolerance import Parity, runtime_name, stated_tolerance
from vaezoo.runtime.export_files import common_metadata, is_export, read_manifest
from vaezoo.runtime.manifest import CARD, MANIFEST, FileEntry, GraphName, Manifest
from vaezoo.training.run import Run
from vaezoo.vae import VAE, eval_mode

EXPORTS = Path("exports")


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
    model: Run | VAE | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    examples: Data | None = None,
    opset: int = OPSET,
    dtype: DType = "fp32",
    uint8: bool = False,
    waveform_in: bool = False,
    parts: Sequence[GraphName] | None = None,
    fold_scaling: bool = False,
) -> ExportResult:
    """Exports a model to ONNX. Nothing is written unless the graphs match the model.

    Args:
        model: A loaded run, or its folder, or a `vaezoo.VAE` that a program has trained.
        out: The folder, by default `exports/` and the name of the run or of the module's class. An earlier export there
            is replaced.
        examples: Held-out examples on which the graphs are compared with the model, as `load_examples` takes them. By
            default those that the run keeps. Without any they are generated.
        opset: Version of the ONNX operator set.
        dtype: Of weights and arithmetic between float32 inputs and outputs: "fp32", "fp16", or "int8", calibrated on
            half of the examples.
        uint8: Whether images are uint8 `(N, H, W, C)`, scaled inside the graphs.
        waveform_in: Whether the encoder of a model of sound takes waveforms `(N, samples)`, and computes their log-mel
            spectrograms itself.
        parts: Names of the graphs to write, such as `["decoder"]`. By default all that the model has.
        fold_scaling: Whether the latents of the graphs have the scale of latent diffusion: the encoder gives
            `(z - shift_factor) * scaling_factor`, and the decoder takes it. The model states both numbers.

    Raises:
        ParityError: If a graph differs from the model.
        PluginError: If the model cannot be exported.
        StorageError: If the folder is not an earlier export, contains other files, or cannot be written.
        UnsupportedDataError: If uint8 is set and the data are not images, waveform_in and they are not sound, or the
            examples do not fit the model.
        VaezooError: If the model has no such part, has an operator that the opset lacks, or is not suitable for int8.
            Also if it is not a model, or is a module without the data that it was made for, or states no scale of its
            latents to fold.
    """
    config = ExportConfig(opset=opset, dtype=dtype, uint8=uint8, waveform=waveform_in)
    if isinstance(parts, str):
        raise VaezooError(f"parts is the text '{safe_repr(parts)}', not a list", 'for example parts=["decoder"]')
    source = find_source(model, examples)
    if fold_scaling:
        source = replace(source, vae=FoldedVAE(source.vae, scaling_of_latents(source.vae)))
    path = Path(out) if out is not None else EXPORTS / source.name
    if path.exists():
        check_replaceable(path)
    # A program's module may be in training mode, in which a batch normalisation would change, and on another device.
    with eval_mode(source.vae), on_device(source.vae, torch.device("cpu")):
        return write_export(source, path, config, parts)


def write_export(source: Source, path: Path, config: ExportConfig, parts: Sequence[GraphName] | None) -> ExportResult:
    """Writes the export of a model that is in evaluation mode and on the CPU; see `export_onnx`."""
    vae, examples = source.vae, source.examples
    if config.dtype == "int8":
        calibration, examples = halves(check_suitable(vae, examples))
    graphs = export_graphs(vae, config, parts, examples)
    if config.dtype == "int8":
        graphs = quantize_graphs(vae, graphs, config, calibration)
    description = describe(source, graphs, config)
    onnx_files = add_metadata({name: graph.data for name, graph in graphs.items()}, common_metadata(description))
    # The gate runs on the bytes that will be written.
    graphs = {name: replace(graph, data=onnx_files[name]) for name, graph in graphs.items()}
    rows, cases = check_parity(vae, graphs, config, examples)
    files = {f"{name}.onnx": data for name, data in onnx_files.items()} | golden_files(cases)
    files |= latent_files(vae, graphs, examples)
    manifest: Manifest = {
        **description,
        "files": {name: file_entry(data) for name, data in files.items()},
        "parity": {
            "runtime": runtime_name(),
            "batches": list(batches_of(cases)),
            "tolerance": stated_tolerance(config.dtype),
            "rows": [row.as_dict() for row in rows],
        },
    }
    files[CARD] = model_card(manifest).encode()
    manifest["files"][CARD] = file_entry(files[CARD])
    with atomic_dir(path.resolve(), replace=True) as work:
        for name, data in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(data)
        (work / MANIFEST).write_bytes(json_bytes(manifest))
    return ExportResult(path, manifest, rows)


def file_entry(data: bytes) -> FileEntry:
    """Returns size and hash of a file."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def check_replaceable(path: Path) -> None:
    """Raises StorageError unless a folder is an export and contains only files that the export wrote.

    Damaged graphs may be replaced. A card that was changed may hold a user's own text.
    """
    if not is_export(path):
        raise StorageError(f"{path} exists and is not an export", "give another --out")
    files: Mapping[str, FileEntry] = {}
    with contextlib.suppress(InputError):  # a damaged manifest, or one of another schema, does not list its files
        files = read_manifest(path)["files"]
    if CARD in files and (path / CARD).is_file() and sha256(path / CARD) != files[CARD]["sha256"]:
        raise StorageError(f"{path / CARD} was changed since the export", "move it, or give another --out")
    known = {"encoder.onnx", "decoder.onnx", "prior.onnx", MANIFEST, CARD, *files}
    present = {file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()}
    if foreign := present - known:
        raise StorageError(
            f"{path} contains {min(foreign)}, which does not belong to an export", "move it, or give another --out"
        )
