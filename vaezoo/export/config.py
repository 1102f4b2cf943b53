"""The forms that a graph can be written in."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

from vaezoo.errors import UnsupportedDataError, VaezooError

DType = Literal["fp32", "fp16"]
OPSET = 18  # the exporter's own; all providers have kernels for it
OPSETS = range(18, 24)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """How to write both graphs.

    Attributes:
        opset: Version of the ONNX operator set.
        dtype: Type of the weights and of the arithmetic; inputs and outputs are float32 in either.
        uint8: Images are uint8 `(N, H, W, C)`, as files hold them, instead of float32 `(N, C, H, W)` in [0, 1].

    Raises:
        VaezooError: If a value is none of these.
    """

    opset: int = OPSET
    dtype: DType = "fp32"
    uint8: bool = False

    def __post_init__(self) -> None:
        if self.opset not in OPSETS:
            raise VaezooError(f"opset {self.opset} is out of range", f"use {OPSETS.start} to {OPSETS.stop - 1}")
        if self.dtype not in get_args(DType):
            raise VaezooError(f"no element type named '{self.dtype}'", f"use {' or '.join(get_args(DType))}")

    def require(self, shape: tuple[int, ...]) -> None:
        """Raises UnsupportedDataError if data of this shape cannot be uint8 images."""
        if self.uint8 and len(shape) != 3:
            raise UnsupportedDataError(f"uint8 is for images; the data have shape {shape}", "leave out --uint8")

    def as_dict(self) -> dict[str, object]:
        """Returns the fields for JSON."""
        return asdict(self)
