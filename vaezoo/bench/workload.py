"""What a benchmark measures: graphs, inputs with the model's outputs and, except for an export, the PyTorch model.

This module does without torch, as the measurement of an export does. models.py makes workloads of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaezoo.bench.result import Task, WorkloadEntry
from vaezoo.errors import InputError
from vaezoo.export.cases import Case
from vaezoo.export.config import ExportConfig
from vaezoo.export.golden import read_cases
from vaezoo.export.verify import read_config, verify_onnx
from vaezoo.runtime.export_files import read_graph, read_manifest
from vaezoo.runtime.manifest import ENCODER_DECODER, Array, GraphName

if TYPE_CHECKING:
    from vaezoo.vae import VAE

TASKS: tuple[Task, ...] = ("encoder", "decoder", "round trip")


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
    names = [name for name in ENCODER_DECODER if name in manifest["graphs"]]
    if not names:
        raise InputError(f"{folder} has neither encoder nor decoder", "export the run without --parts")
    files = {graph: read_graph(folder, manifest, graph) for graph in names}
    cases = {graph: read_cases(folder, manifest, graph) for graph in names}
    return Workload(entry, None, files, manifest["mode"], config, task_cases(cases))


def task_cases(cases: Mapping[GraphName, list[Case]]) -> dict[Task, Case]:
    """Returns the first case of each graph, and if both are there, that of the encoder followed by the decoder."""
    tasks = {task: cases[task][0] for task in TASKS if task in cases}
    if len(tasks) < len(ENCODER_DECODER):
        return tasks
    encoded, decoded = cases["encoder"][0], cases["decoder"][0]
    others = {name: array for name, array in decoded.inputs.items() if name != "z"}
    round_trip = Case(encoded.name, {**encoded.inputs, **others}, decoded.outputs)
    return {**tasks, "round trip": round_trip}
