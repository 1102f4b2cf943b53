"""The Poincare VAE: latents in hyperbolic space."""

from vaezoo.composition import MLPParts, composed
from vaezoo.posteriors.poincare import PoincarePart
from vaezoo.priors.poincare import PoincarePriorPart

SPEC = composed(
    MLPParts(latent_dim=2, hidden=(600,), posterior=PoincarePart(), prior=PoincarePriorPart()),
    summary="Wrapped normal latents in the Poincare disc, on one dense layer of 600",
    reference="Mathieu et al. 2019, arXiv 1901.06033",
)
