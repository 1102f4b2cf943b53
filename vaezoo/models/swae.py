"""The sliced Wasserstein autoencoder. Its encoder is deterministic."""

from vaezoo.composition import ConvParts, composed
from vaezoo.nn.conv import image_latents
from vaezoo.objectives.sliced_wasserstein import SlicedWassersteinPart
from vaezoo.posteriors.delta import DeltaPart
from vaezoo.priors.standard_normal import ZeroKLPart

SPEC = composed(
    ConvParts(latent_dim=8, posterior=DeltaPart(), prior=ZeroKLPart(), objective=SlicedWassersteinPart()),
    summary="An autoencoder whose codes are held near the prior by a distance on random lines, on convolutions",
    reference="Kolouri et al. 2018, arXiv 1804.01947",
    data_defaults=image_latents,
)
