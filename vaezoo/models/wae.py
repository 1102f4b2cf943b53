"""WAE-MMD, the Wasserstein autoencoder with the maximum mean discrepancy. Its encoder is deterministic."""

from vaezoo.composition import ConvParts, composed
from vaezoo.nn.conv import image_latents
from vaezoo.objectives.mmd import MMDPart
from vaezoo.posteriors.delta import DeltaPart
from vaezoo.priors.standard_normal import ZeroKLPart

SPEC = composed(
    ConvParts(latent_dim=8, posterior=DeltaPart(), prior=ZeroKLPart(), objective=MMDPart()),
    summary="An autoencoder whose codes are held near the prior by a kernel discrepancy, on convolutions",
    reference="Tolstikhin et al. 2018, arXiv 1711.01558",
    data_defaults=image_latents,
)
