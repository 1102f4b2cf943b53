"""RAE: a deterministic convolutional autoencoder with penalties on its latents and its decoder."""

from vaezoo.composition import ConvParts, composed
from vaezoo.objectives.rae import RAEPart
from vaezoo.posteriors.delta import DeltaPart
from vaezoo.priors.standard_normal import ZeroKLPart

SPEC = composed(
    ConvParts(posterior=DeltaPart(), prior=ZeroKLPart(), objective=RAEPart()),
    summary="Deterministic, with penalties on latents and decoder instead of noise, on convolutions",
    reference="Ghosh et al. 2020, arXiv 1903.12436",
)
