"""The Hamiltonian VAE: gradients of its own decoder move z towards p(z|x)."""

from vaezoo.composition import MLPParts, composed
from vaezoo.posteriors.hamiltonian import HamiltonianPart

SPEC = composed(
    MLPParts(posterior=HamiltonianPart()),
    summary="Leapfrog steps along gradients of the decoder in the posterior, on dense layers",
    reference="Caterini et al. 2018, arXiv 1805.11328",
)
