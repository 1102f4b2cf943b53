"""Run an exported model on numpy arrays, with numpy and onnxruntime only.

model = vaezoo.runtime.load("exports/conv-vae-digits-1")
images = model.sample(16, seed=1)
"""

from vaezoo.runtime.graphs import Source
from vaezoo.runtime.inputs import as_array
from vaezoo.runtime.onnx_vae import OnnxVAE, load

__all__ = ["OnnxVAE", "Source", "as_array", "load"]
