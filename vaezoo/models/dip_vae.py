"""DIP-VAE: the convolutional VAE with a penalty on the covariance of its latents."""

from vaezoo.composition import ConvParts, composed
from vaezoo.objectives.dip_vae import DIPVAEPart

SPEC = composed(
    ConvParts(latent_dim=10, objective=DIPVAEPart()),
    summary="A penalty holds the covariance of the latents near the identity, on convolutions",
    reference="Kumar et al. 2018, arXiv 1711.00848",
)
