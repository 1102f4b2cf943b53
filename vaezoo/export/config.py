"""The options of an export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from vaezoo.errors import UnsupportedDataError, VaezooError, safe_repr
from vaezoo.runtime.manifest import FormatEntry

DType = Literal["fp32", "fp16", "int8"]
OPSET = 18  # the exporter's own opset; all providers have kernels for it
OPSETS = range(15, 24)  # below 18 a model without later operators is lowered to it

# The oldest ONNX Runtime that ran the graphs of each opset, of those that scripts/oldest_runtime.py tried.
OLDEST_RUNTIME = dict.fromkeys(range(15, 19), "1.15.1")
OLDEST_RUNTIME |= {19: "1.16.3", 20: "1.17.3", 21: "1.18.1", 22: "1.22.1", 23: "1.23.2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """How to write both graphs.

    Attributes:
        opset: Version of the ONNX operator set.
        dtype: Type of the weights and of the arithmetic. Inputs and outputs are float32 in all cases.
        uint8: Whether images are uint8 `(N, H, W, C)` instead of float32 `(N, C, H, W)` in [0, 1].
        waveform: Whether the encoder of a model of sound takes waveforms `(N, samples)` instead of spectrograms.

    Raises:
        VaezooError: If the opset or the dtype is not supported, or two options do not fit together.
    """

    opset: int = OPSET
    dtype: DType = "fp32"
    uint8: bool = False
    waveform: bool = False

    def __post_init__(self) -> None:
        if type(self.opset) is not int or self.opset not in OPSETS:
            hint = f"use a whole number from {OPSETS.start} to {OPSETS.stop - 1}"
            raise VaezooError(f"opset {safe_repr(self.opset)} is out of range", hint)
        if self.dtype not in get_args(DType):
            raise VaezooError(f"unknown dtype '{safe_repr(self.dtype)}'", f"use {', '.join(get_args(DType))}")

        if self.waveform and (self.uint8 or self.dtype != "fp32"):
            other = "--uint8" if self.uint8 else f"--dtype {self.dtype}"
            raise VaezooError(
                f"--waveform-in does not go with {other}: waveforms are float32", "leave out one of the two"
            )

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raises UnsupportedDataError if uint8 is set and data of this shape are not images."""
        if self.uint8 and len(shape) != 3:
            raise UnsupportedDataError(f"uint8 is for images, the data have shape {shape}", "leave out --uint8")

    def as_dict(self) -> FormatEntry:
        """Returns the fields for JSON."""
        entry: FormatEntry = {"opset": self.opset, "dtype": self.dtype, "uint8": self.uint8}
        return {**entry, "waveform": True} if self.waveform else entry
