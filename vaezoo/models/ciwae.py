"""CIWAE: the dense VAE with a combination of the ELBO and an importance-weighted bound."""

from vaezoo.composition import MLPParts, composed
from vaezoo.objectives.iwae import IWAEPart

SPEC = composed(
    MLPParts(objective=IWAEPart(k=64, mix=0.05)),
    summary="The bound of 64 importance samples with some of the ELBO, on dense layers",
    reference="Rainforth et al. 2018, arXiv 1802.04537",
)
