"""Installs the built wheels in clean venvs and uses them outside the repository.

    python tests/smoke_wheel.py dist/vaezoo-0.1.0-py3-none-any.whl dist/vaezoo_runtime-0.1.0-py3-none-any.whl [uv]

Not collected by pytest: `make wheel-test` runs it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
RECIPES = Path(__file__).parents[1] / "vaezoo" / "recipes"


# In a venv without torch: load, encode, decode, sample.
USE_RUNTIME = """
import importlib.util, numpy as np, vaezoo_runtime
assert not [name for name in ("torch", "vaezoo", "onnx", "PIL") if importlib.util.find_spec(name)]
model = vaezoo_runtime.load("exports/run")
images = model.sample(3, seed=1)
mu = model.encode(images)["mu"]
assert images.shape == (3, 1, 28, 28) and np.allclose(model.decode(mu), model.reconstruct(images), atol=1e-5)
"""
# In a venv with both distributions: they do the same.
USE_BOTH = """
import numpy as np, vaezoo, vaezoo_runtime
images = [module.load("exports/run").sample(3, seed=1) for module in (vaezoo.runtime, vaezoo_runtime)]
assert np.array_equal(*images)
"""


def main(wheel: Path, runtime: Path, uv: str) -> None:
    """Runs the smoke test; a failing command ends it with its output."""
    assert runtime.name.split("-")[1] == wheel.name.split("-")[1], "the wheels have different versions"
    files = [set(ZipFile(file).namelist()) for file in (wheel, runtime)]
    assert not files[0] & files[1] and "vaezoo_runtime/__init__.py" in files[1]
    assert {f"vaezoo/explore/page/{name}" for name in ("index.html", "explore.js", "explore.css")} <= files[0]
    has_runtime = "vaezoo/explore/runtime/ort-wasm-simd-threaded.wasm" in files[0]  # after `make web`
    folders = {name.split("/")[0] for name in ZipFile(wheel).namelist()}
    assert {name for name in folders if not name.endswith(".dist-info")} == {"vaezoo", "vaezoo_cli"}, folders
    with tempfile.TemporaryDirectory() as folder:
        venv = Path(folder) / "venv"
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}

        def call(*command: str) -> str:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
            return done.stdout

        call(sys.executable, "-m", "venv", "--without-pip", str(venv))
        target = ("--python", str(venv / "bin" / "python"))
        call(uv, "pip", "install", "--quiet", *target, "--constraints", str(CONSTRAINTS), f"{wheel}[cpu]")
        vaezoo = str(venv / "bin" / "vaezoo")
        listed = {row["name"] for row in json.loads(call(vaezoo, "list", "--json"))["models"]}
        assert {"mlp-vae", "conv-vae", "beta-vae", "vae-gan", "autoencoder"} <= listed, listed
        assert len(json.loads(call(vaezoo, "recipes", "--json"))["recipes"]) == len([*RECIPES.glob("*.toml")])
        call(vaezoo, "train", "--recipe", "mlp-784-400-20", "--data", "digits", "--steps", "20", "--out", "run")
        call(vaezoo, "sample", "run")
        call(vaezoo, "reconstruct", "run")
        assert len(json.loads(call(vaezoo, "eval", "run", "--metrics", "fid", "--json"))["metrics"]) == 2
        exported = json.loads(call(vaezoo, "export", "run", "--onnx", "--json"))
        assert exported["parity"]["runtime"] == "onnxruntime", exported
        call(vaezoo, "export", "conv-vae-mnist", "--onnx")
        call(vaezoo, "new-plugin", "my-vae")
        call(vaezoo, "verify", "exports/run")
        call(vaezoo, "sample", "exports/conv-vae-mnist")
        if has_runtime:
            call(vaezoo, "explore", "exports/conv-vae-mnist", "--out", "page")
            assert (Path(folder) / "page" / "runtime" / "ort-wasm-simd-threaded.wasm").stat().st_size > 10_000_000
        python = str(venv / "bin" / "python")
        call(uv, "pip", "install", "--quiet", *target, "--constraints", str(CONSTRAINTS), str(runtime))
        call(python, "-c", USE_BOTH)
        call(uv, "pip", "uninstall", "--quiet", *target, "vaezoo-runtime")
        call(vaezoo, "verify", "exports/run")
        lean = Path(folder) / "lean"  # an engineer who ships the files wants no torch
        call(sys.executable, "-m", "venv", "--without-pip", str(lean))
        python = str(lean / "bin" / "python")
        pip = (uv, "pip", "install", "--quiet", "--python", python, "--constraints", str(CONSTRAINTS))
        call(*pip, f"{runtime}[cpu]")
        call(python, "-c", USE_RUNTIME)
        call(*pip, f"{runtime}[cpu,verify]")
        assert call(python, "-m", "vaezoo_runtime", "verify", "exports/run").endswith("ok\n")
        assert "ort-cpu" in call(python, "-m", "vaezoo_runtime", "bench", "exports/run", "--seconds", "0.01")
        images = ("run/samples.png", "run/reconstructions.png", "exports/conv-vae-mnist-outputs/samples.png")
        for file in (*images, "exports/run/decoder.onnx", "exports/conv-vae-mnist/decoder.onnx"):
            assert (Path(folder) / file).stat().st_size > 1000, file
        assert (Path(folder) / "vaezoo-my-vae" / "vaezoo_my_vae.py").exists()
    print(f"1 passed: {wheel.name} works in a clean environment, and {runtime.name} in one without torch")


if __name__ == "__main__":
    program = str(Path(sys.argv[3]).absolute()) if len(sys.argv) > 3 else "uv"
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), program)
