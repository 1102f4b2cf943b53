"""The gate: what the model makes of some inputs, and whether its graphs make the same of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vaezoo.export.config import ExportConfig
from vaezoo.export.graphs import Decoder, Encoder, Graph, encoder_outputs, to_bytes
from vaezoo.export.tolerance import BATCHES, Case, Parity, check_graphs
from vaezoo.runtime.manifest import GraphName
from vaezoo.vae import VAE, eval_mode

COUNT = max(BATCHES)
SPREAD = 3.0  # latents are drawn from a normal of this standard deviation: further out than the prior's


def check_parity(
    vae: VAE, graphs: Mapping[GraphName, Graph], form: ExportConfig | None = None, examples: Tensor | None = None
) -> tuple[list[Parity], dict[GraphName, list[Case]]]:
    """Checks both graphs against the model they came from; see `check_graphs` for the errors.

    Args:
        vae: The model, on the CPU.
        graphs: Its graphs.
        form: How they were written.
        examples: Real data in [0, 1], `(N, *shape)`; uniform noise takes their place where there are none.

    Returns:
        One Parity for each output and kind of inputs, and the inputs with what the model made of them.
    """
    form = form or ExportConfig()
    with eval_mode(vae):
        cases, mode = make_cases(vae, graphs, form, examples)
    files = {part: graph.data for part, graph in graphs.items()}
    signatures = {part: graph.signature for part, graph in graphs.items()}
    return check_graphs(files, signatures, cases, mode, form), cases


def make_cases(
    vae: VAE, graphs: Mapping[GraphName, Graph], form: ExportConfig, examples: Tensor | None
) -> tuple[dict[GraphName, list[Case]], str]:
    """Runs the model on examples and noise, on their codes and on wide latents; returns this and the mode's name."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((2, COUNT, *vae.data.shape), generator=generator)
    latents = SPREAD * torch.randn((COUNT, *vae.latent_shape), generator=generator)
    told = "generated examples" if examples is None else "real examples"
    x = noise[1] if examples is None else examples[torch.arange(COUNT) % len(examples)]
    x, y = (to_bytes(x), to_bytes(noise[0])) if form.uint8 else (x, noise[0])
    encoder, decoder = Encoder(vae, form).eval(), Decoder(vae, form).eval()
    with torch.no_grad():
        mode = encoder_outputs(vae, noise[0][:1])[1]
        codes, others = (encoder(inputs)[graphs["encoder"].outputs.index(mode)] for inputs in (x, y))
    # Latents that are whole numbers have no normal distribution: the codes of noise take the place of one.
    wide = (
        (latents.to(codes.dtype), f"latents of {SPREAD:g} sigma")
        if codes.is_floating_point()
        else (others, "codes of noise")
    )
    cases: dict[GraphName, list[Case]] = {
        "encoder": [
            make_case(told, encoder, x, graphs["encoder"].outputs),
            make_case("uniform noise", encoder, y, graphs["encoder"].outputs),
        ],
        "decoder": [
            make_case(f"codes of {told}", decoder, codes, graphs["decoder"].outputs),
            make_case(wide[1], decoder, wide[0], graphs["decoder"].outputs),
        ],
    }
    return cases, mode


def make_case(name: str, module: nn.Module, inputs: Tensor, outputs: list[str]) -> Case:
    """Runs one part of the model."""
    with torch.no_grad():
        results = module(inputs)
    results = results if isinstance(results, tuple) else (results,)
    return Case(name, inputs.numpy(), {n: t.contiguous().numpy() for n, t in zip(outputs, results, strict=True)})
