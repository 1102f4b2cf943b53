"""A convolutional VAE for spectrograms of sound."""

from vaezoo.composition import ConvParts, composed

SPEC = composed(
    ConvParts(latent_dim=32),
    summary="Strided convolutions over frequency and time, for log-mel spectrograms of sound",
    reference="Kingma and Welling 2014, arXiv 1312.6114; Griffin and Lim 1984",
)
