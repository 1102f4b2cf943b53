"""A VAE of waveforms: 1-D convolutions with strides of 4 and snake activations."""

from __future__ import annotations

from collections.abc import Mapping

from vaezoo.composition import Conv1dParts, composed
from vaezoo.data.spec import DataSpec

CHANNELS = (16, 32, 64, 128)  # of waveforms with at least 1,024 samples
STRIDE = 4
MIN_STEPS = 4  # that are left after the last convolution


def depth_of(data: DataSpec) -> Mapping[str, object]:
    """Returns channels and strides of as many convolutions as a series has room for, up to four."""
    depth = 1
    while depth < len(CHANNELS) and data.shape[-1] // STRIDE ** (depth + 1) >= MIN_STEPS:
        depth += 1
    return {"channels": CHANNELS[:depth], "strides": (STRIDE,) * depth}


SPEC = composed(
    Conv1dParts(latent_dim=64, kernel_size=2 * STRIDE, activation="snake"),
    summary="Strided convolutions over time with snake activations, for waveforms of sound",
    reference="Ziyin, Hartwig and Ueda 2020, arXiv 2006.08195; Kumar et al. 2023, arXiv 2306.06546",
    data_defaults=depth_of,
)
