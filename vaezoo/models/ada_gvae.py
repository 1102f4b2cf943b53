"""Ada-GVAE: the convolutional VAE, trained on pairs of examples that share some factors of variation."""

from vaezoo.composition import ConvParts, composed
from vaezoo.objectives.ada_gvae import AdaGVAEPart

SPEC = composed(
    ConvParts(latent_dim=10, objective=AdaGVAEPart()),
    summary="Trained on pairs of examples that share unknown factors of variation, on convolutions",
    reference="Locatello et al. 2020, arXiv 2002.02886",
)
