"""The adversarial autoencoder. Its encoder is deterministic."""

from vaezoo.composition import MLPParts, composed
from vaezoo.objectives.adversarial import AdversarialPart
from vaezoo.posteriors.delta import DeltaPart
from vaezoo.priors.standard_normal import ZeroKLPart

SPEC = composed(
    MLPParts(latent_dim=8, posterior=DeltaPart(), prior=ZeroKLPart(), objective=AdversarialPart()),
    summary="An autoencoder whose codes a discriminator holds near the prior, on dense layers",
    reference="Makhzani et al. 2015, arXiv 1511.05644",
)
