"""A small run and a small export, written without training and without PyTorch's exporter, in milliseconds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from vaezoo.export.golden import golden_files
from vaezoo.export.metadata import add_metadata
from vaezoo.export.tolerance import Case
from vaezoo.runtime.manifest import SCHEMA, properties

RNG = np.random.default_rng(0)
WEIGHTS = {
    "mu": RNG.normal(size=(4, 2)).astype(np.float32),
    "logvar": RNG.normal(size=(4, 2)).astype(np.float32),
    "x_mean": RNG.normal(size=(2, 4)).astype(np.float32),
}
SHA = "0" * 64


def run_description() -> dict[str, object]:
    """Returns the run.json of `write_run`."""
    return {
        "schema": 1,
        "model": "vaezoo/mlp-vae",
        "options": {"hidden": [3], "latent_dim": 2},
        "data": {"name": "tiny", "shape": [4], "likelihood": "bernoulli"},
        "source": {"data": "digits", "data_dir": None, "size": None, "likelihood": None},
        "training": {"epochs": 1, "lr": 0.001, "schedule": "constant", "milestones": [], "clip_grad": None},
        "ranks": 1,
        "device": "cpu",
        "versions": {"torch": "2.15.0"},
        "fingerprint": "0" * 64,
    }


def write_run(folder: Path) -> Path:
    """Writes a run of an untrained mlp-vae and returns the folder."""
    from vaezoo.data.base import DataSpec
    from vaezoo.registry import find_model
    from vaezoo.training.checkpoint import save_checkpoint

    data = DataSpec(name="tiny", shape=(4,))
    _, vae, objective = find_model("mlp-vae").build({"hidden": [3], "latent_dim": 2}, data)
    for step in (0, 7):
        parts = {"model": vae.state_dict(), "objective": objective.state_dict()}
        save_checkpoint(folder / "checkpoints", parts, step, {"elbo": float(step)}, {})
    (folder / "run.json").write_text(json.dumps(run_description()))
    return folder


def graphs() -> dict[str, ModelProto]:
    """Returns the two graphs: encoder x -> mu, logvar and decoder z -> x_mean."""
    return {"encoder": _graph("x", 4, {"mu": 2, "logvar": 2}), "decoder": _graph("z", 2, {"x_mean": 4})}


def _graph(name: str, size: int, outputs: Mapping[str, int]) -> ModelProto:
    def value(name: str, size: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])

    made = helper.make_graph(
        [helper.make_node("MatMul", [name, f"w_{output}"], [output]) for output in outputs],
        "tiny",
        [value(name, size)],
        [value(output, n) for output, n in outputs.items()],
        [numpy_helper.from_array(WEIGHTS[output], f"w_{output}") for output in outputs],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def description() -> dict[str, object]:
    """Returns the manifest of `write_export` but for its files."""

    def value(name: str, size: int) -> dict[str, object]:
        return {"name": name, "dtype": "float32", "shape": ["batch", size]}

    return {
        "schema": SCHEMA,
        "model": "vaezoo/mlp-vae",
        "options": {"latent_dim": 2},
        "data": {"name": "tiny", "shape": [4], "likelihood": "bernoulli"},
        "latent_shape": [2],
        "prior": "standard-normal",
        "mode": "mu",
        "format": {"opset": 18, "dtype": "fp32", "uint8": False},
        "checkpoint": {"step": 7, "sha256": SHA},
        "license": None,
        "versions": {"vaezoo": "0"},
        "graphs": {
            "encoder": {"input": value("x", 4), "outputs": [value("mu", 2), value("logvar", 2)]},
            "decoder": {"input": value("z", 2), "outputs": [value("x_mean", 4)]},
        },
    }


def cases() -> dict[str, list[Case]]:
    """Returns inputs and outputs of both graphs, computed by numpy."""
    x = [RNG.random((8, 4), np.float32) for _ in range(2)]
    z = [x[0] @ WEIGHTS["mu"], RNG.normal(size=(8, 2)).astype(np.float32)]
    return {
        "encoder": [Case("", a, {name: a @ WEIGHTS[name] for name in ("mu", "logvar")}) for a in x],
        "decoder": [Case("", a, {"x_mean": a @ WEIGHTS["x_mean"]}) for a in z],
    }


def write_export(
    folder: Path,
    change: Callable[[dict[str, ModelProto]], object] = lambda models: None,
    edit: Callable[[dict[str, bytes]], object] = lambda files: None,
) -> Path:
    """Writes an export whose hashes all fit, as somebody would who wants it believed, and returns the folder.

    Args:
        folder: Where to.
        change: Changes the graphs.
        edit: Changes the files, by path.
    """
    models, manifest = graphs(), description()
    change(models)
    graph_bytes = {part: models[part].SerializeToString() for part in ("encoder", "decoder")}
    files = {
        f"{part}.onnx": data for part, data in add_metadata(graph_bytes, properties(manifest)).items()
    } | golden_files(cases())
    edit(files)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    listed = {name: {"bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for name, d in files.items()}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"files": listed}))
    return folder
