"""What a benchmark measures: graphs, inputs with the model's outputs and, except for an export, the PyTorch model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from vaezoo.bench.result import Task, WorkloadEntry
from vaezoo.core.options import config_json
from vaezoo.data.base import Batch, DataSpec
from vaezoo.errors import UnsupportedDataError
from vaezoo.export.config import ExportConfig
from vaezoo.export.golden import read_cases
from vaezoo.export.graphs import export_graphs, mode_name
from vaezoo.export.parity import make_cases
from vaezoo.export.tolerance import Case
from vaezoo.export.verify import read_config, verify_onnx
from vaezoo.registry import Registration, find_model
from vaezoo.runtime.manifest import REQUIRED_GRAPHS, Array, GraphName, read_graph, read_manifest
from vaezoo.training.run import Run
from vaezoo.vae import VAE

TASKS: tuple[Task, ...] = ("encoder", "decoder", "round trip")
DIGITS = DataSpec(name="digits", shape=(1, 28, 28), likelihood="bernoulli")
# What a model without a run is built for: the first of these that it supports.
DEFAULT_DATA = (
    DIGITS,
    replace(DIGITS, classes=(10,)),
    DataSpec(name="texts", shape=(16,), kind="tokens", likelihood="categorical", vocabulary=28),
    DataSpec(name="series", shape=(2, 32), kind="real", likelihood="gaussian"),
    DataSpec(name="table", shape=(3,), kind="table", likelihood="table", columns=("a:real", "b:real", "c:3")),
)


@dataclass(frozen=True, slots=True)
class Workload:
    """A model to measure.

    Attributes:
        entry: Model, options, data and format, for the result.
        vae: The model in evaluation mode on the CPU, or None for an export.
        files: Its graphs.
        mode: The encoder's output that is the mode of q(z|x).
        config: How the graphs are written.
        cases: Inputs and the model's outputs for each task.
    """

    entry: WorkloadEntry
    vae: VAE | None
    files: Mapping[GraphName, bytes]
    mode: str
    config: ExportConfig
    cases: Mapping[Task, Case]

    def case(self, task: Task, batch: int) -> Case:
        """Returns a task's inputs and outputs at a batch size. Examples are repeated as needed."""
        case = self.cases[task]
        index = np.arange(batch) % len(case)

        def rows(arrays: Mapping[str, Array]) -> dict[str, Array]:
            return {name: array[index] for name, array in arrays.items()}

        return Case(case.name, rows(case.inputs), rows(case.outputs))


def from_model(name: str, data: DataSpec | None = None, config: ExportConfig | None = None) -> Workload:
    """Returns an untrained model at its defaults. Speed does not depend on the weights.

    Args:
        name: A registered model.
        data: The data to build it for, by default the first of DEFAULT_DATA that it supports.
        config: How the graphs are written. With fp16, PyTorch runs in float16 too.

    Raises:
        UnsupportedDataError: If the model does not support the data.
    """
    registration = find_model(name)
    data = data or default_data(registration)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        options, vae, _ = registration.build({}, data)
    return _from_vae(vae.eval(), registration.full_name, config_json(options), "untrained", None, config)


def default_data(registration: Registration) -> DataSpec:
    """Returns the first of DEFAULT_DATA that a model supports, or the first of all if it supports none."""
    for data in DEFAULT_DATA:
        try:
            with torch.device("meta"):  # allocates no memory
                registration.build({}, data)
        except UnsupportedDataError:
            continue
        return data
    return DEFAULT_DATA[0]


def from_run(run: Run) -> Workload:
    """Returns the model of a run."""
    return _from_vae(run.vae, run.full_name, run.options, f"step {run.checkpoint.step}", run.examples)


def from_export(folder: Path) -> Workload:
    """Verifies an export and returns its graphs. There is no PyTorch model to compare them with.

    Raises:
        InputError: If the folder is not an export or is damaged.
        ParityError: If its graphs differ from its golden data.
    """
    verify_onnx(folder)
    manifest = read_manifest(folder)
    config = read_config(folder, manifest)
    entry: WorkloadEntry = {
        "model": manifest["model"],
        "options": manifest["options"],
        "weights": "exported",
        "shape": manifest["data"]["shape"],
        "format": config.as_dict(),
    }
    files = {graph: read_graph(folder, manifest, graph) for graph in REQUIRED_GRAPHS}
    cases = {graph: read_cases(folder, manifest, graph) for graph in REQUIRED_GRAPHS}
    return Workload(entry, None, files, manifest["mode"], config, _task_cases(cases))


def _from_vae(
    vae: VAE,
    model: str,
    options: Mapping[str, object],
    weights: str,
    examples: Batch | None,
    config: ExportConfig | None = None,
) -> Workload:
    config = config or ExportConfig()
    graphs = export_graphs(vae, config)
    cases, mode = make_cases(vae, config, examples), mode_name(vae)
    entry: WorkloadEntry = {
        "model": model,
        "options": dict(options),
        "weights": weights,
        "parameters": sum(p.numel() for p in vae.parameters()),
        "shape": list(vae.data.shape),
        "format": config.as_dict(),
    }
    files = {name: graph.data for name, graph in graphs.items()}
    return Workload(entry, vae, files, mode, config, _task_cases(cases))


def _task_cases(cases: Mapping[GraphName, list[Case]]) -> dict[Task, Case]:
    """Returns the first case of each graph, and the case of the encoder followed by the decoder."""
    encoded, decoded = cases["encoder"][0], cases["decoder"][0]
    others = {name: array for name, array in decoded.inputs.items() if name != "z"}
    round_trip = Case(encoded.name, {**encoded.inputs, **others}, decoded.outputs)
    return {"encoder": encoded, "decoder": decoded, "round trip": round_trip}
