"""The VQ-VAE's network with finite scalar quantization (Mentzer et al. 2023): each dimension is rounded."""

from __future__ import annotations

from vaezoo.nn.codes import CODE_FORMULAS, CodeConfig, build, objective
from vaezoo.nn.quantizers.fsq import FSQPart
from vaezoo.spec import ModelSpec

SPEC = ModelSpec(
    config=CodeConfig(quantizer=FSQPart()),
    build=build,
    objective=objective,
    summary="A grid of discrete codes by rounding, without a codebook to learn",
    reference="Mentzer et al. 2023, arXiv 2309.15505",
    parts={"posterior": "codes", "prior": "uniform codes", "objective": "vq"},
    formulas=CODE_FORMULAS,
)
