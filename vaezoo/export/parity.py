"""The parity gate: run the model and its graphs on the same inputs and compare their outputs.

`check_parity` makes the inputs and calls `check_graphs` of tolerance.py, which compares and raises.

Each graph gets the inputs that it declares for two batches, and for one of each further size of the model:

1. Held-out examples: what users will encode, and their latents for the decoder.
2. Generated examples, such as uniform noise: far from the data, so that activations which the data never reach are
   compared too. For the decoder, latents from three times the prior's noise take the place of their latents. This is
   well beyond what a sample of the prior reaches. Graphs in int8 are compared on real examples and on draws of the
   prior: outside of the range that was calibrated, they are wrong by design.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor

from vaezoo.data.base import Batch
from vaezoo.export.calibration import LATENT_SIGMA, prior_latents
from vaezoo.export.cases import Case, example_count
from vaezoo.export.config import ExportConfig
from vaezoo.export.graphs import Graph, GraphModule, graph_modules, mode_name
from vaezoo.export.tolerance import Parity, check_graphs
from vaezoo.posteriors.base import map_tensors
from vaezoo.runtime.manifest import GraphName
from vaezoo.vae import VAE, eval_mode, example_batch


def check_parity(
    vae: VAE, graphs: Mapping[GraphName, Graph], config: ExportConfig | None = None, examples: Batch | None = None
) -> tuple[list[Parity], dict[GraphName, list[Case]]]:
    """Checks all graphs against their model; see `check_graphs` for the errors.

    Args:
        vae: The model, on the CPU.
        graphs: Its graphs.
        config: How they were written.
        examples: Real data. Without them, generated examples are used.

    Returns:
        One Parity for each output and case, and the cases.
    """
    config = config or ExportConfig()
    with eval_mode(vae):
        cases, mode = make_cases(vae, config, examples, list(graphs)), mode_name(vae)
    files = {name: graph.data for name, graph in graphs.items()}
    signatures = {name: graph.signature for name, graph in graphs.items()}
    return check_graphs(files, signatures, cases, mode, config), cases


def make_cases(
    vae: VAE, config: ExportConfig, examples: Batch | None, parts: Sequence[GraphName] | None = None
) -> dict[GraphName, list[Case]]:
    """Runs the model and returns the cases of each graph, or of some parts."""
    # One generator with a fixed seed: the same model yields the same golden files each time.
    generator = Generator().manual_seed(0)
    count = example_count(vae.shapes)
    generated = example_batch(vae.data, count, generator)
    source = "generated examples" if examples is None else "real examples"
    if examples is None:
        real = example_batch(vae.data, count, generator)
    else:
        index = torch.arange(count) % len(examples.x)
        real = map_tensors(examples, lambda tensor: tensor[index])
    batches = {source: real, "uniform noise" if vae.data.kind == "unit" else "generated values": generated}
    if config.dtype == "int8":  # only what resembles the data fits in the calibrated ranges
        batches = {source: real}
    for shape in vae.shapes[1:] if config.dtype != "int8" else ():
        batches[f"size {'x'.join(map(str, shape[1:] or shape))}"] = example_batch(vae.data, count, generator, shape)
    modules, cases = graph_modules(vae, config, parts), {}
    for name, module in modules.items():
        latents = "" if "x" in module.graph.names else "latents of "
        cases[name] = [make_case(latents + text, module, module.inputs(batch)) for text, batch in batches.items()]
        if config.dtype != "int8":
            cases[name] += [make_case("another size", module, more(generated)) for more in module.graph.more]
    if "decoder" in modules:
        sigma = 1.0 if config.dtype == "int8" else LATENT_SIGMA
        cases["decoder"][1:2] = [wide_case(vae, modules["decoder"], generated, sigma, generator)]
    return cases


def wide_case(vae: VAE, decoder: GraphModule, batch: Batch, sigma: float, generator: Generator) -> Case:
    """Returns the decoder's case of latents from sigma times the prior's noise, or of the latents of a batch."""
    z, *others = decoder.inputs(batch)
    if not z.is_floating_point():  # whole numbers have no noise
        return make_case("latents of noise", decoder, (z, *others))
    return make_case(f"latents of {sigma:g} sigma", decoder, (prior_latents(vae, z, batch, sigma, generator), *others))


def make_case(name: str, module: GraphModule, inputs: tuple[Tensor, ...]) -> Case:
    """Runs a graph of the model on some inputs."""
    with torch.no_grad():
        outputs = module.named(*inputs)
    arrays = (tensor.detach().contiguous().numpy() for tensor in inputs)
    return Case(
        name,
        dict(zip(module.graph.names, arrays, strict=True)),
        {n: tensor.detach().contiguous().numpy() for n, tensor in outputs.items()},
    )
