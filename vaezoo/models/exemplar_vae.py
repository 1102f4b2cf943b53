"""The exemplar VAE, whose prior is a mixture around encoded training examples."""

from vaezoo.composition import MLPParts, composed
from vaezoo.priors.exemplar import ExemplarPart

SPEC = composed(
    MLPParts(latent_dim=40, hidden=(300, 300), activation="gated", prior=ExemplarPart()),
    summary="A mixture of Gaussians around encoded training examples as the prior, on gated dense layers",
    reference="Norouzi et al. 2020, arXiv 2004.04795",
)
