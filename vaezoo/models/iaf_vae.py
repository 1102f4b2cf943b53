"""The VAE with an inverse autoregressive flow as the posterior."""

from vaezoo.composition import MLPParts, composed
from vaezoo.posteriors.iaf import IAFPart

SPEC = composed(
    MLPParts(posterior=IAFPart(steps=2)),
    summary="Inverse autoregressive flows as the posterior, on dense layers",
    reference="Kingma et al. 2016, arXiv 1606.04934",
)
