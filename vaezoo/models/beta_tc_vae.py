"""beta-TCVAE: the convolutional VAE with a weighted total correlation of its latents."""

from vaezoo.composition import ConvParts, composed
from vaezoo.objectives.total_correlation import BetaTCVAEPart

SPEC = composed(
    ConvParts(latent_dim=10, objective=BetaTCVAEPart()),
    summary="The total correlation of the latents is estimated from each batch and weighted, on convolutions",
    reference="Chen et al. 2018, arXiv 1802.04942",
)
