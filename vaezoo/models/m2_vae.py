"""M2: a VAE that infers the label, for data of which few examples have one."""

from vaezoo.composition import MLPParts, composed
from vaezoo.objectives.m2 import M2Part

SPEC = composed(
    MLPParts(condition="inferred", objective=M2Part()),
    summary="It infers labels, of which a few examples are enough, on dense layers; samples of a chosen label",
    reference="Kingma et al. 2014, arXiv 1406.5298",
)
