"""Checks of an export: the ONNX graphs equal the model, and the runtime without torch does what the model does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Generator, Tensor

from vaezoo.export.config import ExportConfig
from vaezoo.export.description import autoregressive_entry, data_entry, prior_entry
from vaezoo.export.graphs import (
    Graph,
    GraphModule,
    export_graphs,
    free_axes,
    graph_modules,
    input_signature,
    mode_name,
    tensor_signature,
)
from vaezoo.export.parity import check_parity
from vaezoo.runtime import OnnxVAE, Source
from vaezoo.runtime.manifest import Array, GraphName, GraphSignature, Manifest
from vaezoo.testing.examples import Spec, build_example
from vaezoo.testing.rows import TOLERANCE, largest_difference
from vaezoo.testing.statistics import MAX_ERRORS
from vaezoo.vae import VAE, eval_mode, example_batch

if TYPE_CHECKING:
    import onnxruntime as ort

SAMPLES = 128
SLACK = 0.05  # of a mean over SAMPLES samples
ADVICE = "Do not override reconstruct and sample: an export has the graphs only."


def check_onnx(spec: Spec) -> None:
    """All graphs export to ONNX with a dynamic batch and equal the model at several batch sizes."""
    vae, _, _ = build_example(spec)
    check_parity(vae.eval(), export_graphs(vae))


def check_runtime(spec: Spec) -> None:
    """The runtime without torch encodes, reconstructs and samples as the model does, given the model's graphs."""
    vae, _, batch = build_example(spec)
    with eval_mode(vae):
        runtime = open_runtime(vae)
        x, y = (None if tensor is None else tensor.numpy() for tensor in batch)
        assert x is not None
        mode = torch.from_numpy(runtime.encode(x, y)[runtime.manifest["mode"]])
        pairs = {"the mode of q(z|x)": (mode, vae.infer(batch).mode())}
        if vae.data.kind != "table":  # for tables the runtime gives probabilities, and not categories
            pairs["reconstruct(x)"] = torch.from_numpy(runtime.reconstruct(x, y)), vae.reconstruct(*batch)
        for name, (actual, expected) in pairs.items():
            difference = largest_difference(actual, expected)
            assert difference < TOLERANCE, f"{name} differs by {difference:.2g} from that of the runtime. {ADVICE}"
        if runtime.manifest["prior"] is None or vae.data.kind == "table":
            return
        torch.manual_seed(0)
        errors = mean_errors(vae, vae.sample(SAMPLES), torch.from_numpy(runtime.sample(SAMPLES, seed=1)))
    what = f"the mean of samples is {errors:.0f} standard errors from that of the runtime's samples"
    assert errors < MAX_ERRORS, f"{what}. {ADVICE}"


def mean_errors(vae: VAE, ours: Tensor, theirs: Tensor) -> float:
    """Returns how many standard errors two sets of samples `(N, *shape)` differ in the mean of a feature, at most."""
    a, b = (vae.data.features(x).flatten(1).double() for x in (ours, theirs))
    error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt() + 1e-12
    return float((((a.mean(0) - b.mean(0)).abs() - SLACK).clamp(min=0) / error).max())


class TorchSession:
    """Stands for ONNX Runtime's session of a graph: the same arrays in and out, computed by the model itself.

    `check_onnx` compares the ONNX graphs with the model. So here only the runtime's own steps are of interest.

    Args:
        module: The graph.
    """

    def __init__(self, module: GraphModule) -> None:
        self.module = module

    def run(self, outputs: None, inputs: Mapping[str, Array]) -> list[Array]:
        """Returns the outputs of the graph in their order."""
        tensors = (torch.from_numpy(inputs[name]) for name in self.module.graph.names)
        return [tensor.numpy() for tensor in self.module.named(*tensors).values()]


def open_runtime(vae: VAE) -> OnnxVAE:
    """Returns the runtime on a model's graphs, without an export."""
    modules = graph_modules(vae, ExportConfig())
    manifest = {
        "model": "the model",
        "data": data_entry(vae.data),
        "latent_shape": list(vae.latent_shape),
        "prior": prior_entry(vae, cast("Mapping[GraphName, Graph]", modules)),  # it only asks for their names
        "autoregressive": autoregressive_entry(vae),
        "mode": mode_name(vae),
        "graphs": {name: signature_of(vae, module) for name, module in modules.items()},
    }
    sessions = {name: TorchSession(module) for name, module in modules.items()}
    source = Source(Path("the model"), "cpu", None)
    return OnnxVAE(cast("Manifest", manifest), cast("Mapping[GraphName, ort.InferenceSession]", sessions), source)


def signature_of(vae: VAE, module: GraphModule) -> GraphSignature:
    """Returns the inputs and outputs of a graph as an export states them."""
    generator = Generator().manual_seed(0)
    batches = [example_batch(vae.data, 2, generator, shape) for shape in vae.shapes]
    examples = [module.inputs(batch) for batch in batches] + [more(batches[0]) for more in module.graph.more]
    results = [module.named(*example) for example in examples]
    named = {name: [example[i] for example in examples] for i, name in enumerate(module.graph.names)}
    return {
        "inputs": [input_signature(name, tensors, free_axes(name, tensors)) for name, tensors in named.items()],
        "outputs": [tensor_signature(name, [r[name] for r in results], {0: "batch"}) for name in results[0]],
    }
