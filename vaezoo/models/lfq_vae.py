"""The VQ-VAE's network with lookup-free quantization (Yu et al. 2023): codes are the signs of the features."""

from __future__ import annotations

from vaezoo.nn.codes import CODE_FORMULAS, CodeConfig, build, objective
from vaezoo.nn.quantizers.lfq import LFQPart
from vaezoo.spec import ModelSpec

SPEC = ModelSpec(
    config=CodeConfig(quantizer=LFQPart()),
    build=build,
    objective=objective,
    summary="A grid of discrete codes by signs, for large codebooks",
    reference="Yu et al. 2023, arXiv 2310.05737",
    parts={"posterior": "codes", "prior": "uniform codes", "objective": "vq"},
    formulas=CODE_FORMULAS,
)
