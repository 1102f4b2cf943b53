"""InfoVAE: the convolutional VAE with the maximum mean discrepancy of q(z) and p(z) beside the KL."""

from vaezoo.composition import ConvParts, composed
from vaezoo.nn.conv import image_latents
from vaezoo.objectives.mmd import MMDPart

SPEC = composed(
    ConvParts(objective=MMDPart(beta=0.5)),
    summary="Half of the KL, and a discrepancy that holds all latents together near the prior, on convolutions",
    reference="Zhao et al. 2017, arXiv 1706.02262",
    data_defaults=image_latents,
)
