"""VQ-VAE (van den Oord et al. 2017): a grid of codes, each of which names a vector of a codebook."""

from __future__ import annotations

from vaezoo.nn.codes import CODE_FORMULAS, CodeConfig, build, objective
from vaezoo.spec import ModelSpec

SPEC = ModelSpec(
    config=CodeConfig(),
    build=build,
    objective=objective,
    summary="A grid of discrete codes with a learned codebook, for images from 8x8 to 256x256",
    reference="van den Oord et al. 2017, arXiv 1711.00937",
    parts={"posterior": "codes", "prior": "uniform codes", "objective": "vq"},
    formulas=CODE_FORMULAS,
)
