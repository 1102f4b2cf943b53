"""A convolutional VAE for series. Its depth follows from their length."""

from __future__ import annotations

from dataclasses import dataclass

from vaezoo.composition import Parts, composed
from vaezoo.nn.conv1d import Conv1dConfig


@dataclass(frozen=True, kw_only=True)
class Conv1dParts(Parts, Conv1dConfig):
    """The options of a composed model of convolutions over time."""


SPEC = composed(
    Conv1dParts(),
    summary="Strided convolutions over time, for series of any number of channels, 8 steps and longer",
    reference="Kingma and Welling 2014, arXiv 1312.6114",
)
