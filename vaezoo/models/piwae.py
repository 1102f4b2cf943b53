"""PIWAE: the dense VAE with an importance-weighted bound of its own for encoder and decoder."""

from vaezoo.composition import MLPParts, composed
from vaezoo.objectives.iwae import IWAEPart

SPEC = composed(
    MLPParts(objective=IWAEPart(k=8, m=8, gradient="piwae")),
    summary="Encoder by 8 bounds of 8 importance samples, decoder by one of 64, on dense layers",
    reference="Rainforth et al. 2018, arXiv 1802.04537",
)
