"""Run models that vaezoo exported, with numpy and onnxruntime.

model = vaezoo_runtime.load("exports/conv-vae-digits-1")
images = model.sample(16, seed=1)

In the package vaezoo, the same is `vaezoo.runtime`.
"""

from __future__ import annotations

import os

from vaezoo_runtime.errors import InputError, VaezooError
from vaezoo_runtime.runtime import OnnxVAE, load

__all__ = ["InputError", "OnnxVAE", "VaezooError", "load", "verify_onnx"]


def verify_onnx(folder: str | os.PathLike[str], **options: object) -> object:
    """Checks an export; see `vaezoo_runtime.export.verify.verify_onnx`. It needs the extra `verify`."""
    from vaezoo_runtime.export.verify import verify_onnx as verify

    return verify(folder, **options)
