"""The workloads of models: of a run, or of an untrained model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from vaezoo.bench.result import WorkloadEntry
from vaezoo.bench.workload import Workload, task_cases
from vaezoo.core.options import config_json
from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec
from vaezoo.errors import UnsupportedDataError
from vaezoo.export.cases import Case
from vaezoo.export.config import ExportConfig
from vaezoo.export.graphs import export_graphs, graph_modules, mode_name
from vaezoo.export.parity import make_case, make_cases
from vaezoo.registry import Registration, find_model
from vaezoo.runtime.manifest import ENCODER_DECODER, GraphName
from vaezoo.training.run import Run
from vaezoo.vae import VAE, example_batch

SIZED_EXAMPLES = 2  # of large images; they are repeated for larger batches
DIGITS = DataSpec(name="digits", shape=(1, 28, 28), likelihood="bernoulli")
# What a model without a run is built for: the first of these that it supports.
DEFAULT_DATA = (
    DIGITS,
    replace(DIGITS, classes=(10,)),
    DataSpec(name="texts", shape=(16,), kind="tokens", likelihood="categorical", vocabulary=28),
    DataSpec(name="series", shape=(2, 32), kind="real", likelihood="gaussian"),
    DataSpec(name="table", shape=(3,), kind="table", likelihood="table", columns=("a:real", "b:real", "c:3")),
)


def from_model(
    name: str, data: DataSpec | None = None, config: ExportConfig | None = None, image_size: int | None = None
) -> Workload:
    """Returns an untrained model at its defaults. Speed does not depend on the weights.

    Args:
        name: A registered model.
        data: The data to build it for, by default the first of DEFAULT_DATA that it supports.
        config: How the graphs are written. With fp16, PyTorch runs in float16 too.
        image_size: As in `from_run`.

    Raises:
        UnsupportedDataError: If the model does not support the data or the size.
    """
    registration = find_model(name)
    data = data or default_data(registration)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        options, vae, _ = registration.build({}, data)
    return _from_vae(vae.eval(), registration.full_name, config_json(options), "untrained", None, config, image_size)


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


def from_run(run: Run, image_size: int | None = None) -> Workload:
    """Returns the model of a run.

    Args:
        run: The run.
        image_size: Height and width of the images that are measured, for a model of free sizes. They are noise.

    Raises:
        UnsupportedDataError: If the model does not take this size.
    """
    weights = f"step {run.checkpoint.step}"
    return _from_vae(run.vae, run.full_name, run.options, weights, run.examples, image_size=image_size)


def _from_vae(
    vae: VAE,
    model: str,
    options: Mapping[str, object],
    weights: str,
    examples: Batch | None,
    config: ExportConfig | None = None,
    image_size: int | None = None,
) -> Workload:
    config = config or ExportConfig()
    if image_size is None:
        cases, shape = make_cases(vae, config, examples), vae.data.shape
    else:
        cases, shape = sized_cases(vae, config, image_size)
    graphs, mode = export_graphs(vae, config), mode_name(vae)
    entry: WorkloadEntry = {
        "model": model,
        "options": dict(options),
        "weights": weights,
        "parameters": sum(p.numel() for p in vae.parameters()),
        "shape": list(shape),
        "format": config.as_dict(),
    }
    files = {name: graph.data for name, graph in graphs.items()}
    return Workload(entry, vae, files, mode, config, task_cases(cases))


def sized_cases(vae: VAE, config: ExportConfig, size: int) -> tuple[dict[GraphName, list[Case]], tuple[int, ...]]:
    """Returns the cases of encoder and decoder for square images of a size, and the shape of one image.

    Raises:
        UnsupportedDataError: If the model does not take this size.
    """
    if len(vae.shapes) == 1 or len(vae.data.shape) != 3:
        what = f"--image-size is {size}, but the model takes only data of shape {vae.data.shape}"
        raise UnsupportedDataError(what, "leave it out, or measure a model of free sizes such as autoencoder-kl")
    shape = (vae.data.shape[0], size, size)
    batch = example_batch(vae.data, SIZED_EXAMPLES, torch.Generator().manual_seed(0), shape)
    modules = graph_modules(vae, config, ENCODER_DECODER)
    return {name: [make_case(f"size {size}", module, module.inputs(batch))] for name, module in modules.items()}, shape
