"""A convolutional VAE for series. Its depth follows from their length."""

from vaezoo.composition import Conv1dParts, composed

SPEC = composed(
    Conv1dParts(),
    summary="Strided convolutions over time, for series of any number of channels, 8 steps and longer",
    reference="Kingma and Welling 2014, arXiv 1312.6114",
)
