"""The hyperspherical VAE: latents on the unit sphere."""

from vaezoo.composition import MLPParts, composed
from vaezoo.posteriors.von_mises_fisher import VonMisesFisherPart
from vaezoo.priors.sphere import UniformSpherePart

SPEC = composed(
    # 11 coordinates of the sphere that the paper calls S^10.
    MLPParts(latent_dim=11, posterior=VonMisesFisherPart(), prior=UniformSpherePart()),
    summary="von Mises-Fisher latents on the unit sphere, on dense layers",
    reference="Davidson et al. 2018, arXiv 1804.00891",
)
