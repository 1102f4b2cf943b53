"""The VQ-VAE's network with residual quantization (Zeghidour et al. 2021): several codes at each position."""

from __future__ import annotations

from vaezoo.nn.codes import CODE_FORMULAS, CodeConfig, build, objective
from vaezoo.nn.quantizers.vq import ResidualPart
from vaezoo.spec import ModelSpec

SPEC = ModelSpec(
    config=CodeConfig(quantizer=ResidualPart()),
    build=build,
    objective=objective,
    summary="A grid of discrete codes from several codebooks, each for what the ones before leave over",
    reference="Zeghidour et al. 2021, arXiv 2107.03312",
    parts={"posterior": "codes", "prior": "uniform codes", "objective": "vq"},
    formulas=CODE_FORMULAS,
)
