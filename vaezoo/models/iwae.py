"""The importance-weighted autoencoder: the dense VAE with the bound of several importance samples."""

from vaezoo.composition import MLPParts, composed
from vaezoo.objectives.iwae import IWAEPart

SPEC = composed(
    MLPParts(objective=IWAEPart(k=50)),
    summary="The bound of 50 importance samples, on dense layers; also with the gradient of DReG",
    reference="Burda et al. 2016, arXiv 1509.00519; Tucker et al. 2019, arXiv 1810.04152",
)
