"""The workloads of models: of a run, or of an untrained model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from vaezoo.bench.result import WorkloadEntry
from vaezoo.bench.workload import Workload, task_cases
from vaezoo.core.options import config_json
from vaezoo.data.base import Batch, DataSpec
from vaezoo.errors import UnsupportedDataError
from vaezoo.export.config import ExportConfig
from vaezoo.export.graphs import export_graphs, mode_name
from vaezoo.export.parity import make_cases
from vaezoo.registry import Registration, find_model
from vaezoo.training.run import Run
from vaezoo.vae import VAE

DIGITS = DataSpec(name="digits", shape=(1, 28, 28), likelihood="bernoulli")
# What a model without a run is built for: the first of these that it supports.
DEFAULT_DATA = (
    DIGITS,
    replace(DIGITS, classes=(10,)),
    DataSpec(name="texts", shape=(16,), kind="tokens", likelihood="categorical", vocabulary=28),
    DataSpec(name="series", shape=(2, 32), kind="real", likelihood="gaussian"),
    DataSpec(name="table", shape=(3,), kind="table", likelihood="table", columns=("a:real", "b:real", "c:3")),
)


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
    return Workload(entry, vae, files, mode, config, task_cases(cases))
