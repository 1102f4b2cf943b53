"""What is measured: graphs, inputs with the model's outputs and, unless only an export is at hand, the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vaezoo.data.base import DataSpec
from vaezoo.export.config import ExportConfig
from vaezoo.export.golden import read_cases
from vaezoo.export.graphs import export_graphs
from vaezoo.export.parity import make_cases
from vaezoo.export.tolerance import Case
from vaezoo.export.verify import read_format, verify_onnx
from vaezoo.registry import find_model
from vaezoo.runtime.manifest import GRAPH_NAMES, GraphName, read_graph, read_manifest
from vaezoo.spec import config_json
from vaezoo.training.run import Run
from vaezoo.vae import VAE

Task = Literal["encoder", "decoder", "round trip"]
TASKS: tuple[Task, ...] = ("encoder", "decoder", "round trip")
DIGITS = DataSpec(name="digits", shape=(1, 28, 28), likelihood="bernoulli")


@dataclass(frozen=True, slots=True)
class Workload:
    """A model to be measured.

    Attributes:
        described: Model, options, data and format, for the record.
        vae: The model in evaluation mode, on the CPU; None for an export.
        files: Its graphs.
        mode: The encoder's output that is z's mode.
        form: How the graphs are written.
        cases: For each task inputs and what the model makes of them.
    """

    described: Mapping[str, Any]
    vae: VAE | None
    files: Mapping[GraphName, bytes]
    mode: str
    form: ExportConfig
    cases: Mapping[Task, Case]

    def case(self, task: Task, batch: int) -> Case:
        """Returns a task's inputs and outputs at a batch size, repeated as needed."""
        case = self.cases[task]
        repeat = np.arange(batch) % len(case.inputs)
        return Case(case.name, case.inputs[repeat], {n: a[repeat] for n, a in case.outputs.items()})


def from_model(name: str) -> Workload:
    """Takes a registered model at its defaults, untrained, for 28x28 grey images: speed needs no training."""
    registration = find_model(name)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        config, vae, _ = registration.build({}, DIGITS)
    described: dict[str, object] = {
        "model": registration.full_name,
        "options": config_json(config),
        "weights": "untrained",
    }
    return _from_vae(vae.eval(), described, None)


def from_run(run: Run) -> Workload:
    """Takes a trained model."""
    described: dict[str, object] = {
        "model": run.full_name,
        "options": dict(run.options),
        "weights": f"step {run.checkpoint.step}",
    }
    return _from_vae(run.vae, described, run.examples)


def from_export(folder: Path) -> Workload:
    """Takes an export's files after they were verified. There is no model in PyTorch to compare them with.

    Raises:
        InputError: If the folder is no export or is damaged.
        ParityError: If its graphs do not compute what its golden data say.
    """
    verify_onnx(folder)
    manifest = read_manifest(folder)
    cases = {part: read_cases(folder, manifest, part) for part in GRAPH_NAMES}
    described: dict[str, object] = {"model": manifest["model"], "options": manifest["options"], "weights": "exported"}
    files = {part: read_graph(folder, manifest, part) for part in GRAPH_NAMES}
    form = read_format(folder, manifest)
    shape = manifest["data"]["shape"]
    return _subject(described, None, shape, files, manifest["mode"], form, cases)


def _from_vae(vae: VAE, described: dict[str, object], examples: torch.Tensor | None) -> Workload:
    form = ExportConfig()
    graphs = export_graphs(vae, form)
    cases, mode = make_cases(vae, graphs, form, examples)
    described |= {"parameters": sum(p.numel() for p in vae.parameters())}
    files = {part: graph.data for part, graph in graphs.items()}
    return _subject(described, vae, vae.data.shape, files, mode, form, cases)


def _subject(
    described: dict[str, object],
    vae: VAE | None,
    shape: tuple[int, ...],
    files: Mapping[GraphName, bytes],
    mode: str,
    form: ExportConfig,
    cases: Mapping[GraphName, list[Case]],
) -> Workload:
    encoded, decoded = cases["encoder"][0], cases["decoder"][0]
    tasks: dict[Task, Case] = {
        "encoder": encoded,
        "decoder": decoded,
        "round trip": Case(encoded.name, encoded.inputs, decoded.outputs),
    }
    described |= {"shape": list(shape), "format": form.as_dict()}
    return Workload(described, vae, files, mode, form, tasks)
