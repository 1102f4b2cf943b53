"""MIWAE: the dense VAE with the mean of several importance-weighted bounds."""

from vaezoo.composition import MLPParts, composed
from vaezoo.objectives.iwae import IWAEPart

SPEC = composed(
    MLPParts(objective=IWAEPart(k=8, m=8)),
    summary="The mean of 8 bounds of 8 importance samples, on dense layers",
    reference="Rainforth et al. 2018, arXiv 1802.04537",
)
