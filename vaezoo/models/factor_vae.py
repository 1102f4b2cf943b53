"""FactorVAE: the convolutional VAE with a penalty on the total correlation of its latents."""

from vaezoo.composition import ConvParts, composed
from vaezoo.objectives.factor_vae import FactorVAEPart

SPEC = composed(
    ConvParts(latent_dim=10, objective=FactorVAEPart(gamma=10.0)),
    summary="A discriminator penalises the total correlation of the latents, on convolutions",
    reference="Kim and Mnih 2018, arXiv 1802.05983",
)
