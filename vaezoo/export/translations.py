"""Translations of operations to ONNX that are exact where those of PyTorch's exporter are not.

The exporter writes log sigmoid(x) as Log(Sigmoid(x)), which is -inf below -18 in ONNX Runtime, and logaddexp as
Log(Exp(a) + Exp(b)), which overflows above 88. The model itself has neither fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18 as op


def log_sigmoid(x: Any) -> Any:
    """log sigmoid(x) = -softplus(-x)."""
    return op.Neg(op.Softplus(op.Neg(x)))


def logaddexp(a: Any, b: Any) -> Any:
    """log(exp(a) + exp(b)) = max(a, b) + softplus(-|a - b|). Equal values may be infinite, so they are apart."""
    apart = op.Add(op.Max(a, b), op.Softplus(op.Neg(op.Abs(op.Sub(a, b)))))
    log_2: Any = op.Constant(value_float=math.log(2))
    return op.Where(op.Equal(a, b), op.Add(a, op.CastLike(log_2, a)), apart)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.log_sigmoid.default: log_sigmoid,
    torch.ops.aten.logaddexp.default: logaddexp,
}
