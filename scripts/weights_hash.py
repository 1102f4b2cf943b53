"""Trains every built-in model for 300 steps, eager and compiled, and prints a hash of the final weights.

A refactor must not change them. Run this script with the interpreters of two commits, on the same machine:

    python scripts/weights_hash.py
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.numpy import load_file

RUNS: dict[str, dict[str, object]] = {
    "mlp-vae": {},
    "conv-vae": {},
    "beta-vae": {},
    "autoencoder": {},
    "vae-gan": {},
    "vae-gan balanced": {"equilibrium": 0.68},
}
TRAIN = """
import json, sys, vaezoo
model, options, compile_mode, out = json.loads(sys.argv[1])
config = vaezoo.TrainConfig(steps=300, seed=0, compile=compile_mode, device="cpu")
vaezoo.train(model, "digits", options=options, config=config, out=out)
"""


def train(model: str, options: dict[str, object], compile_mode: str, out: Path) -> str:
    """Trains in a process of its own and returns the SHA-256 of the final weights, by name, in hexadecimal."""
    arguments = json.dumps([model, options, compile_mode, str(out)])
    subprocess.run([sys.executable, "-c", TRAIN, arguments], check=True, capture_output=True)
    digest = hashlib.sha256()
    for name, values in sorted(load_file(out / "checkpoints" / "step-00000300" / "model.safetensors").items()):
        digest.update(name.encode() + values.tobytes())
    return digest.hexdigest()


def main() -> None:
    total = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        for label, options in RUNS.items():
            for compile_mode in ("off", "on"):
                out = Path(folder) / f"{label}-{compile_mode}".replace(" ", "-")
                found = train(label.split()[0], options, compile_mode, out)
                total.update(found.encode())
                print(f"{label:18} compile {compile_mode:4} {found[:16]}", flush=True)
    print(f"all {total.hexdigest()}")


if __name__ == "__main__":
    main()
