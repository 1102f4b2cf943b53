"""Writes a small run and a small export in milliseconds, without a training and without PyTorch's exporter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from vaezoo.export.cases import Case
from vaezoo.export.golden import golden_files
from vaezoo.export.metadata import add_metadata
from vaezoo.runtime.export_files import common_metadata
from vaezoo.runtime.manifest import SCHEMA, DataEntry, Description, GraphName, GraphSignature

RNG = np.random.default_rng(0)
WEIGHTS = {
    "mu": RNG.normal(size=(4, 2)).astype(np.float32),
    "logvar": RNG.normal(size=(4, 2)).astype(np.float32),
    "x_mean": RNG.normal(size=(2, 4)).astype(np.float32),
}
SHA = "0" * 64
DATA: DataEntry = {
    "name": "tiny",
    "shape": [4],
    "likelihood": "bernoulli",
    "kind": "unit",
    "classes": [],
    "vocabulary": 0,
    "columns": [],
    "symbols": [],
}


def run_description() -> dict[str, object]:
    """Returns the run.json of `write_run`."""
    from vaezoo.training.run_files import SCHEMA

    return {
        "schema": SCHEMA,
        "model": "vaezoo/mlp-vae",
        "options": {"hidden": [3], "latent_dim": 2},
        "data": DATA,
        "source": {"data": "digits", "data_dir": None, "image_size": None, "likelihood": None},
        "training": {"epochs": 1, "lr": 0.001, "schedule": "constant", "milestones": [], "clip_grad": None},
        "world_size": 1,
        "device": "cpu",
        "versions": {"torch": "2.15.0"},
        "fingerprint": "0" * 64,
    }


def write_run(folder: Path) -> Path:
    """Writes a run of an untrained mlp-vae. Returns the folder."""
    from vaezoo.data.spec import DataSpec
    from vaezoo.registry import find_model
    from vaezoo.training.checkpoint import save_checkpoint

    data = DataSpec(name="tiny", shape=(4,))
    _, vae, objective = find_model("mlp-vae").build({"hidden": [3], "latent_dim": 2}, data)
    for step in (0, 7):
        parts = {"model": vae.state_dict(), "objective": objective.state_dict()}
        save_checkpoint(folder / "checkpoints", parts, step, {"elbo": float(step)}, {})
    (folder / "run.json").write_text(json.dumps(run_description()))
    return folder


def graphs() -> dict[GraphName, ModelProto]:
    """Returns the two graphs: encoder x -> mu, logvar and decoder z -> x_mean."""
    return {"encoder": _model("x", 4, {"mu": 2, "logvar": 2}), "decoder": _model("z", 2, {"x_mean": 4})}


def _model(name: str, size: int, outputs: Mapping[str, int]) -> ModelProto:
    def value(name: str, size: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])

    graph = helper.make_graph(
        [helper.make_node("MatMul", [name, f"w_{output}"], [output]) for output in outputs],
        "tiny",
        [value(name, size)],
        [value(output, n) for output, n in outputs.items()],
        [numpy_helper.from_array(WEIGHTS[output], f"w_{output}") for output in outputs],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def description() -> Description:
    """Returns the manifest of `write_export` without files and parity."""

    def signature(name: str, size: int, outputs: Mapping[str, int]) -> GraphSignature:
        return {
            "inputs": [{"name": name, "dtype": "float32", "shape": ["batch", size]}],
            "outputs": [{"name": name, "dtype": "float32", "shape": ["batch", n]} for name, n in outputs.items()],
        }

    return {
        "schema": SCHEMA,
        "model": "vaezoo/mlp-vae",
        "options": {"latent_dim": 2},
        "data": DATA,
        "latent_shape": [2],
        "prior": "standard-normal",
        "autoregressive": None,
        "mode": "mu",
        "format": {"opset": 18, "dtype": "fp32", "uint8": False},
        "checkpoint": {"step": 7, "sha256": SHA},
        "graphs": {
            "encoder": signature("x", 4, {"mu": 2, "logvar": 2}),
            "decoder": signature("z", 2, {"x_mean": 4}),
        },
        "binarize": "none",
        "license": None,
        "weights_license": None,
        "versions": {"vaezoo": "0"},
    }


def cases() -> dict[GraphName, list[Case]]:
    """Returns inputs and outputs of both graphs, computed by numpy."""
    x = [RNG.random((8, 4), np.float32) for _ in range(2)]
    z = [x[0] @ WEIGHTS["mu"], RNG.normal(size=(8, 2)).astype(np.float32)]
    return {
        "encoder": [Case("", {"x": a}, {name: a @ WEIGHTS[name] for name in ("mu", "logvar")}) for a in x],
        "decoder": [Case("", {"z": a}, {"x_mean": a @ WEIGHTS["x_mean"]}) for a in z],
    }


def write_export(
    folder: Path,
    change: Callable[[dict[GraphName, ModelProto]], object] = lambda models: None,
    edit: Callable[[dict[str, bytes]], object] = lambda files: None,
) -> Path:
    """Writes an export whose hashes all fit, as an attacker would. Returns the folder.

    Args:
        folder: Where to write it.
        change: Changes the graphs.
        edit: Changes the files, which are given by path.
    """
    models, manifest = graphs(), description()
    change(models)
    serialized = add_metadata(
        {name: model.SerializeToString() for name, model in models.items()}, common_metadata(manifest)
    )
    files = {f"{name}.onnx": data for name, data in serialized.items()} | golden_files(cases())
    edit(files)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    entries = {name: {"bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for name, d in files.items()}
    parity = {"runtime": "onnxruntime", "batches": [1], "rows": []}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"files": entries, "parity": parity}))
    return folder
