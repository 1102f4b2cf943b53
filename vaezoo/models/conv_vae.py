"""A convolutional VAE. Its depth follows from the image size."""

from vaezoo.composition import ConvParts, composed
from vaezoo.nn.conv import image_latents

SPEC = composed(
    ConvParts(),
    summary="Strided convolutions, as many as the image size needs, 8x8 to 256x256",
    reference="Kingma and Welling 2014, arXiv 1312.6114",
    data_defaults=image_latents,
)
