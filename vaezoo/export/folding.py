"""Latents in the scale of latent diffusion: z' = (z - shift) scale, inside the graphs.

Programs of latent diffusion train a second model on z', and apply `scaling_factor` and `shift_factor` themselves. Here
the encoder gives z' and the decoder takes it, so that nobody forgets them. A wrapper of the model does both. So the
parity gate compares the graphs with the wrapped model, and samples of the export are those of the model.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from vaezoo.data.base import Batch
from vaezoo.errors import VaezooError, safe_repr
from vaezoo.posteriors.base import Posterior
from vaezoo.priors.base import Prior
from vaezoo.runtime.manifest import LatentScalingEntry
from vaezoo.vae import VAE


class LatentScaling(NamedTuple):
    """The map z' = (z - shift) * scale of a model's latents. diffusers calls them shift_factor and scaling_factor."""

    scale: float
    shift: float

    def apply(self, z: Tensor) -> Tensor:
        """Returns z' for z."""
        return (z - self.shift) * self.scale

    def invert(self, z: Tensor) -> Tensor:
        """Returns z for z'."""
        return z / self.scale + self.shift

    def posterior(self, posterior: Posterior) -> Posterior:
        """Returns q(z'|x) for q(z|x).

        Raises:
            VaezooError: If the latents are codes, or the posterior has no method `scaled`.
        """
        if not hasattr(posterior, "scaled") or not posterior.mode().is_floating_point():
            raise VaezooError(
                f"the scale of the latents cannot be folded into a {type(posterior).__name__}",
                "leave out --fold-scaling",
            )
        scaled: Posterior = posterior.scaled(self.scale, self.shift)
        return scaled

    def entry(self) -> LatentScalingEntry:
        """Returns the manifest's entry."""
        return {"scaling_factor": self.scale, "shift_factor": self.shift}


class ScaledPrior(Prior):
    """The distribution of z' for a prior of z.

    Args:
        prior: p(z).
        scaling: The map from z to z'.
        size: Number of latents.
    """

    def __init__(self, prior: Prior, scaling: LatentScaling, size: int) -> None:
        super().__init__()
        self.prior, self.scaling, self.size = prior, scaling, size
        self.inputs = prior.inputs  # type: ignore[misc]
        self.noise_shape = prior.noise_shape

    @property
    def sample_inputs(self) -> tuple[str, ...]:
        return self.prior.sample_inputs

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        return self.scaling.apply(self.prior.from_noise(noise, *given))

    def sample(self, n: int, *given: Tensor) -> Tensor:
        """Overridden: a prior may draw without noise."""
        return self.scaling.apply(self.prior.sample(n, *given))

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        return self.prior.log_prob(self.scaling.invert(z), *given) - self.size * math.log(abs(self.scaling.scale))


class FoldedVAE(VAE):
    """A model with its latents in another scale.

    Args:
        vae: The model.
        scaling: The map from its z to the new z'.

    Raises:
        VaezooError: If z are ids, or q(z|x) has no method `scaled`.
    """

    def __init__(self, vae: VAE, scaling: LatentScaling) -> None:
        if vae.prior.autoregressive is not None or vae.autoregressive is not None:
            raise VaezooError("the latents or the data are ids, which have no scale", "leave out --fold-scaling")
        size = math.prod(vae.latent_shape)
        super().__init__(vae.data, vae.latent_shape, ScaledPrior(vae.prior, scaling, size))
        self.vae, self.scaling = vae, scaling
        self.likelihood = vae.likelihood
        self.encoder_inputs, self.decoder_inputs = vae.encoder_inputs, vae.decoder_inputs
        self.left_out = vae.left_out

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return self.vae.shapes

    def encode(self, *inputs: Tensor) -> Posterior:
        return self.scaling.posterior(self.vae.encode(*inputs))

    def infer(self, batch: Batch) -> Posterior:
        """Overridden: as the model does it."""
        return self.scaling.posterior(self.vae.infer(batch))

    def decode(self, z: Tensor, *given: Tensor) -> Tensor:
        return self.vae.decode(self.scaling.invert(z), *given)


def scaling_of_latents(vae: VAE) -> LatentScaling:
    """Returns the scale that a model states in its attributes `scaling_factor` and `shift_factor`. None is no shift.

    Raises:
        VaezooError: If it states none, or no number.
    """
    scale, shift = getattr(vae, "scaling_factor", None), getattr(vae, "shift_factor", None)
    if scale is None:
        raise VaezooError(
            f"a {type(vae).__name__} has no scaling_factor, so there is nothing to fold", "leave out --fold-scaling"
        )
    shift = 0.0 if shift is None else shift
    for name, value in (("scaling_factor", scale), ("shift_factor", shift)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise VaezooError(f"{name} of the model is {safe_repr(value)}, not a number", "leave out --fold-scaling")
    if scale == 0:
        raise VaezooError("scaling_factor of the model is 0", "leave out --fold-scaling")
    return LatentScaling(float(scale), float(shift))
