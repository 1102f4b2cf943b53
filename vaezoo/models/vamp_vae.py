"""The VAE with VampPrior, a mixture of posteriors of learned pseudo-inputs."""

from vaezoo.composition import MLPParts, composed
from vaezoo.priors.mixture import VampPart

SPEC = composed(
    MLPParts(latent_dim=40, hidden=(300, 300), activation="gated", prior=VampPart(components=500)),
    summary="A mixture of posteriors of 500 learned pseudo-inputs as the prior, on gated dense layers",
    reference="Tomczak and Welling 2018, arXiv 1705.07120",
)
