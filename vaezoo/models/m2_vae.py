"""M2, a semi-supervised VAE: it infers the labels of examples without one."""

from vaezoo.composition import MLPParts, composed
from vaezoo.objectives.m2 import M2Part

SPEC = composed(
    MLPParts(condition="inferred", objective=M2Part()),
    summary="Semi-supervised: it infers labels from a few labelled examples, on dense layers; samples of a label",
    reference="Kingma et al. 2014, arXiv 1406.5298",
)
