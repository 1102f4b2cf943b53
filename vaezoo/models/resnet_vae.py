"""A VAE of residual networks. Its depth follows from the image size."""

from __future__ import annotations

from dataclasses import dataclass

from vaezoo.composition import Parts, composed
from vaezoo.nn.conv import image_latents
from vaezoo.nn.resnet import ResNetConfig


@dataclass(frozen=True, kw_only=True)
class ResNetParts(Parts, ResNetConfig):
    """The options of a composed model of residual networks."""


SPEC = composed(
    ResNetParts(),
    summary="Residual blocks with group normalisation, as many as the image size needs, 8x8 to 256x256",
    reference="He et al. 2016, arXiv 1603.05027; Kingma and Welling 2014, arXiv 1312.6114",
    data_defaults=image_latents,
)
