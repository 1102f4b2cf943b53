"""Small runs of real trainings, and functions that forge their files with matching hashes."""

from __future__ import annotations

import hashlib
import json
import signal
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

import vaezoo
from vaezoo import Dataset, TrainConfig, Trainer
from vaezoo.core import signals
from vaezoo.core.json_io import json_bytes
from vaezoo.training.checkpoint import SCHEMA

STOP = 3  # the step at which `stopped_run` stops
X = np.random.default_rng(0).random((40, 4), np.float32)


def make_data(folder: Path) -> Dataset:
    """Writes 40 vectors of 4 numbers to a file, so that their run can be resumed from its path alone."""
    file = folder / "x.npy"
    np.save(file, X)
    return vaezoo.load_data(file)


def stop_after(step: int) -> Callable[[Trainer, Path], None]:
    """Returns an `on_start` that sends SIGTERM to the process when the training has taken `step` steps."""

    def on_start(trainer: Trainer, path: Path) -> None:
        run = trainer.train_step.run

        def run_and_signal(x: Tensor, y: Tensor | None, scalars: Tensor) -> None:
            run(x, y, scalars)
            if trainer.global_step + 1 == step:
                signal.raise_signal(signal.SIGTERM)

        trainer.train_step.run = run_and_signal  # type: ignore[method-assign]

    return on_start


def stopped_run(folder: Path) -> Path:
    """Trains an mlp-vae that is stopped at step 3 of 5. It has checkpoints of steps 0, 2 and 3."""
    config = TrainConfig(steps=5, eval_every=2, batch_size=10, ema_decay=0.9, device="cpu")
    with signals.handle_signals(), pytest.raises(signals.Stopped):
        vaezoo.train(
            "mlp-vae",
            make_data(folder),
            options={"hidden": [3], "latent_dim": 2},
            config=config,
            out=folder / "run",
            on_start=stop_after(STOP),
        )
    return folder / "run"


def update_manifest(checkpoint: Path, **changes: object) -> None:
    """Writes the manifest for a checkpoint's current files. `changes` adds or replaces entries of files."""
    files: dict[str, object] = {}
    for name in ("model.safetensors", "objective.safetensors", "training.safetensors", "state.json"):
        file = checkpoint / name
        if file.is_file() and file.stat().st_size < 1 << 24:
            files[name] = manifest_entry(file.read_bytes())
    (checkpoint / "manifest.json").write_bytes(json_bytes({"schema": SCHEMA, "files": files | changes}))


def manifest_entry(content: bytes) -> dict[str, object]:
    """Returns a file's entry in a manifest."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def split_safetensors(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Returns the header and the payload of a safetensors file."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join_safetensors(header: Mapping[str, object] | bytes, payload: bytes, length: int | None = None) -> bytes:
    """Returns a safetensors file with any header and payload, valid or not.

    Args:
        header: An object, or the bytes of the header.
        payload: The bytes after the header.
        length: The length of the header that the file claims, if it is not the true one.
    """
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + payload
