"""A convolutional VAE. Its depth follows from the image size."""

from vaezoo.nn.conv import ConvConfig, conv_vae
from vaezoo.spec import ModelSpec

SPEC = ModelSpec(
    config=ConvConfig(),
    build=conv_vae,
    summary="Strided convolutions, as many as the image size needs, 8x8 to 256x256",
    reference="Kingma and Welling 2014, arXiv 1312.6114",
)
