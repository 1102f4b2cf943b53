"""Finds the oldest ONNX Runtime that runs an export of each opset. vaezoo.export.config.OLDEST_RUNTIME states it.

    python scripts/oldest_runtime.py 1.15.1 1.16.3 1.17.3 1.18.1 1.19.2 1.20.1 1.22.1 1.23.2

Each version gets an environment of its own in a temporary folder. uv installs it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import vaezoo
from vaezoo.export.config import OPSETS

# Runs the golden inputs without vaezoo, because vaezoo needs a later onnx than fits beside an old runtime.
CHECK = """
import sys, numpy as np, onnxruntime as ort
arrays = np.load(sys.argv[2], allow_pickle=False)
session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
(output,) = session.run(None, {"z": arrays["z"]})
np.testing.assert_allclose(output, arrays["x_mean"], atol=1e-5, rtol=1e-4)
"""


def main(versions: list[str]) -> None:
    """Exports a convolutional model in each opset and runs the decoders in each version."""
    import numpy as np

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = vaezoo.TrainConfig(steps=2, batch_size=20)
        run = vaezoo.train("conv-vae", "digits", config=config, out=folder / "run")
        z = np.random.default_rng(0).standard_normal((8, 16), dtype=np.float32)
        for opset in OPSETS:
            vaezoo.export_onnx(run, folder / str(opset), opset=opset)
        np.savez(folder / "arrays.npz", z=z, x_mean=vaezoo.runtime.load(folder / str(OPSETS.start)).decode(z))
        oldest: dict[int, str] = {}
        for version in versions:
            python = folder / version / "bin" / "python"
            subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, folder / version], check=True)
            install = ["uv", "pip", "install", "--quiet", "--python", python]
            subprocess.run([*install, f"onnxruntime=={version}", "numpy<2"], check=True)
            for opset in OPSETS:
                command = [python, "-c", CHECK, folder / str(opset) / "decoder.onnx", folder / "arrays.npz"]
                if opset not in oldest and not subprocess.run(command, capture_output=True).returncode:
                    oldest[opset] = version
            print(version, oldest, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
