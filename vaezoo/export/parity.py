"""The parity gate: run the model and its graphs on the same inputs and compare their outputs.

`check_parity` makes the inputs and calls `check_graphs` of tolerance.py, which compares and raises.

The gate uses four kinds of inputs:

1. Encoder, held-out examples: what users will encode.
2. Encoder, uniform noise: far from the data, so that activations which the data never reach are compared too.
3. Decoder, the modes of q(z|x) of those examples: what a reconstruction decodes.
4. Decoder, normal latents of three sigma: well beyond what a sample of the prior reaches.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vaezoo.export.config import ExportConfig
from vaezoo.export.graphs import Decoder, Encoder, Graph, encoder_outputs, to_uint8
from vaezoo.export.tolerance import BATCHES, Case, Parity, check_graphs
from vaezoo.runtime.manifest import GraphName
from vaezoo.vae import VAE, eval_mode

COUNT = max(BATCHES)
LATENT_SIGMA = 3.0  # standard deviation of the latents in case 4; that of the prior is 1


def check_parity(
    vae: VAE, graphs: Mapping[GraphName, Graph], config: ExportConfig | None = None, examples: Tensor | None = None
) -> tuple[list[Parity], dict[GraphName, list[Case]]]:
    """Checks both graphs against their model; see `check_graphs` for the errors.

    Args:
        vae: The model, on the CPU.
        graphs: Its graphs.
        config: How they were written.
        examples: Real data in [0, 1], `(N, *shape)`. Without them, uniform noise is used.

    Returns:
        One Parity for each output and case, and the cases.
    """
    config = config or ExportConfig()
    with eval_mode(vae):
        cases, mode = make_cases(vae, graphs, config, examples)
    files = {name: graph.data for name, graph in graphs.items()}
    signatures = {name: graph.signature for name, graph in graphs.items()}
    return check_graphs(files, signatures, cases, mode, config), cases


def make_cases(
    vae: VAE, graphs: Mapping[GraphName, Graph], config: ExportConfig, examples: Tensor | None
) -> tuple[dict[GraphName, list[Case]], str]:
    """Runs the model and returns the cases of each graph, and the name of the output that is the mode of q(z|x)."""
    # One generator with a fixed seed: the same model yields the same golden files each time.
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((2, COUNT, *vae.data.shape), generator=generator)
    wide = LATENT_SIGMA * torch.randn((COUNT, *vae.latent_shape), generator=generator)
    source = "generated examples" if examples is None else "real examples"
    x = noise[1] if examples is None else examples[torch.arange(COUNT) % len(examples)]
    x_noise = noise[0]
    if config.uint8:
        x, x_noise = to_uint8(x), to_uint8(x_noise)
    encoder, decoder = Encoder(vae, config).eval(), Decoder(vae, config).eval()
    with torch.no_grad():
        mode = encoder_outputs(vae, noise[0][:1])[1]
        mode_index = graphs["encoder"].outputs.index(mode)
        codes, noise_codes = (encoder(inputs)[mode_index] for inputs in (x, x_noise))
    # Integer latents have no normal distribution. For them, the latents of noise replace case 4.
    if codes.is_floating_point():
        wide_name, wide = f"latents of {LATENT_SIGMA:g} sigma", wide.to(codes.dtype)
    else:
        wide_name, wide = "latents of noise", noise_codes
    encoder_names, decoder_names = graphs["encoder"].outputs, graphs["decoder"].outputs
    return {
        "encoder": [
            make_case(source, encoder, x, encoder_names),
            make_case("uniform noise", encoder, x_noise, encoder_names),
        ],
        "decoder": [
            make_case(f"latents of {source}", decoder, codes, decoder_names),
            make_case(wide_name, decoder, wide, decoder_names),
        ],
    }, mode


def make_case(name: str, module: nn.Module, inputs: Tensor, outputs: list[str]) -> Case:
    """Runs the encoder or decoder of the model on some inputs."""
    with torch.no_grad():
        results = module(inputs)
    results = results if isinstance(results, tuple) else (results,)
    return Case(name, inputs.numpy(), {n: t.contiguous().numpy() for n, t in zip(outputs, results, strict=True)})
