"""A VAE of dense layers, for data of any kind and size."""

from vaezoo.composition import MLPParts, composed

SPEC = composed(
    MLPParts(),
    summary="Dense encoder and decoder, for images, vectors, tables and series of any size",
    reference="Kingma and Welling 2014, arXiv 1312.6114",
)
