"""Installs a built wheel in a clean venv and uses it outside the repository.

    python tests/smoke_wheel.py dist/vaezoo-0.1.0-py3-none-any.whl [uv]

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


def main(wheel: Path, uv: str) -> None:
    """Runs the smoke test; a failing command ends it with its output."""
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
        assert len(json.loads(call(vaezoo, "recipes", "--json"))["recipes"]) == 14
        call(vaezoo, "train", "--recipe", "mlp-784-400-20", "--data", "digits", "--steps", "20", "--out", "run")
        call(vaezoo, "sample", "run")
        call(vaezoo, "reconstruct", "run")
        assert len(json.loads(call(vaezoo, "eval", "run", "--metrics", "fid", "--json"))["metrics"]) == 2
        exported = json.loads(call(vaezoo, "export", "run", "--onnx", "--json"))
        assert exported["parity"]["runtime"] == "onnxruntime", exported
        call(vaezoo, "export", "conv-vae-mnist", "--onnx")
        call(vaezoo, "new-plugin", "my-vae")
        call(vaezoo, "verify", "exports/run")
        lean = Path(folder) / "lean"  # an engineer who ships the files wants no torch
        call(sys.executable, "-m", "venv", "--without-pip", str(lean))
        pip = (uv, "pip", "install", "--quiet", "--python", str(lean / "bin" / "python"))
        call(*pip, "--no-deps", str(wheel))
        call(*pip, "--constraints", str(CONSTRAINTS), "numpy", "onnxruntime", "click", "rich", "pillow")
        call(str(lean / "bin" / "vaezoo"), "sample", "exports/run", "--out", "lean.png")
        call(str(lean / "bin" / "vaezoo"), "sample", "exports/conv-vae-mnist")
        call(str(lean / "bin" / "vaezoo"), "doctor")
        images = ("lean.png", "run/samples.png", "run/reconstructions.png", "exports/conv-vae-mnist/samples.png")
        for file in (*images, "exports/run/decoder.onnx", "exports/conv-vae-mnist/decoder.onnx"):
            assert (Path(folder) / file).stat().st_size > 1000, file
        assert (Path(folder) / "vaezoo-my-vae" / "vaezoo_my_vae.py").exists()
    print(f"1 passed: {wheel.name} works in a clean environment, and runs an export in one without torch")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), str(Path(sys.argv[2]).absolute()) if len(sys.argv) > 2 else "uv")
