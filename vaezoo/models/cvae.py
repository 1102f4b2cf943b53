"""The conditional VAE: encoder and decoder are given the label."""

from vaezoo.composition import MLPParts, composed

SPEC = composed(
    MLPParts(condition="labels"),
    summary="Encoder and decoder are given the labels, on dense layers; samples of a chosen label",
    reference="Sohn, Lee and Yan 2015; Kingma et al. 2014, arXiv 1406.5298",
)
