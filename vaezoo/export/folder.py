"""The export folder: encoder.onnx, decoder.onnx and manifest.json, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from vaezoo.errors import StorageError
from vaezoo.export.graphs import OPSET, Graph, Part, export_graphs
from vaezoo.export.parity import Parity, check_parity, runtime_name
from vaezoo.files import new_folder, write_json
from vaezoo.training.run import Run

SCHEMA = 1
EXPORTS = Path("exports")
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote.

    Attributes:
        path: The folder.
        graphs: Its two graphs.
        parity: The largest difference from the model, for each output.
        runtime: What ran the graphs for that comparison.
    """

    path: Path
    graphs: dict[Part, Graph]
    parity: list[Parity]
    runtime: str


def export_onnx(run: Run, out: str | os.PathLike[str] | None = None, *, opset: int = OPSET) -> Exported:
    """Exports a run's model to ONNX, compares the graphs with it, and only then puts them in place.

    Args:
        run: A loaded run.
        out: The folder; by default `exports/` and the run's name. An earlier export there is replaced.
        opset: Version of the ONNX operator set.

    Raises:
        ParityError: If a graph does not equal the model.
        PluginError: If the model cannot be exported.
        StorageError: If the folder is something else than an earlier export, or cannot be written.
    """
    path = Path(out) if out is not None else EXPORTS / run.path.resolve().name
    if path.exists() and not (path / MANIFEST).is_file():
        raise StorageError(f"{path} is in the way: it exists and is no export", "give another --out")
    graphs = export_graphs(run.vae, opset)
    parity = check_parity(run.vae, graphs)
    with new_folder(path, replace=True) as work:
        for part, graph in graphs.items():
            (work / f"{part}.onnx").write_bytes(graph.data)
        write_json(work / MANIFEST, manifest(run, graphs, parity, opset))
    return Exported(path, graphs, parity, runtime_name())


def manifest(run: Run, graphs: dict[Part, Graph], parity: list[Parity], opset: int) -> dict[str, object]:
    """Says what the graphs are and where they come from."""
    return {
        "schema": SCHEMA,
        "model": run.model,
        "options": dict(run.options),
        "data": asdict(run.data),
        "latent_shape": list(run.vae.latent_shape),
        "checkpoint": {"step": run.checkpoint.step, "sha256": run.checkpoint.model_sha256},
        "opset": opset,
        "files": {
            f"{part}.onnx": {
                "bytes": len(graph.data),
                "sha256": hashlib.sha256(graph.data).hexdigest(),
                "input": graph.input,
                "outputs": list(graph.outputs),
            }
            for part, graph in graphs.items()
        },
        "parity": {"runtime": runtime_name(), "outputs": [row.as_dict() for row in parity]},
        "versions": {name: version(name) for name in ("vaezoo", "torch", "onnx", "onnxscript")},
    }
