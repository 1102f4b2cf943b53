"""Inputs of a graph that show the range of its activations: examples, and draws from the prior."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from vaezoo.data.base import Batch, given
from vaezoo.runtime.manifest import Array, GraphName
from vaezoo.vae import VAE

if TYPE_CHECKING:
    from vaezoo.export.graphs import GraphModule

LATENT_SIGMA = 3.0  # standard deviation of the noise behind the wide latents; that of the prior is 1


def calibration_feeds(name: GraphName, module: GraphModule, samples: Sequence[Batch]) -> list[dict[str, Array]]:
    """Returns inputs of a graph for batches of data, and latents as wide as those that the parity gate compares."""
    feeds = [calibration_inputs(module.vae, name, module, batch, LATENT_SIGMA) for batch in samples]
    return [*chain(*feeds), *(_named(module, more(samples[-1])) for more in module.graph.more)]


def calibration_inputs(
    vae: VAE, name: GraphName, module: GraphModule, examples: Batch, sigma: float = 1.0, seed: int = 0
) -> list[dict[str, Array]]:
    """Returns inputs of a graph: examples, or for the decoder their latents, and sigma times the prior's noise.

    `seed` is that of the noise.
    """
    batches = [module.inputs(examples)]
    if name == "decoder" and vae.prior.noise_shape is not None:
        z, *others = batches[0]
        noise = Generator().manual_seed(seed)
        batches.append((prior_latents(vae, z, examples, sigma, noise), *others))
    return [_named(module, batch) for batch in batches]


def _named(module: GraphModule, inputs: Sequence[Tensor]) -> dict[str, Array]:
    arrays = (tensor.detach().contiguous().numpy() for tensor in inputs)
    return dict(zip(module.graph.names, arrays, strict=True))


def prior_latents(vae: VAE, z: Tensor, batch: Batch, sigma: float, generator: Generator) -> Tensor:
    """Returns latents from sigma times the prior's noise, of the shape and type of z, one for each row of a batch.

    If the prior draws without noise, they are the noise itself.
    """
    prior = vae.prior
    shape = z.shape[1:] if prior.noise_shape is None else prior.noise_shape
    latents = sigma * torch.randn((len(batch.x), *shape), generator=generator)
    if prior.noise_shape is not None:
        with torch.no_grad():
            latents = prior.from_noise(latents, *given(prior.sample_inputs, batch))
    return latents.to(z.dtype)
