"""Small runs from real trainings, and what an attacker or an accident does to them."""

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

import vaezoo
from vaezoo import Dataset, TrainConfig, Trainer
from vaezoo.core import signals
from vaezoo.core.json_io import json_bytes

STOP = 3  # the step at which `stopped_run` was stopped
X = np.random.default_rng(0).random((40, 4), np.float32)


def data(folder: Path) -> Dataset:
    """40 vectors of 4 numbers, in a file, so that a run of them can be resumed by its path alone."""
    file = folder / "x.npy"
    np.save(file, X)
    return vaezoo.load_data(file)


def stop_at(step: int) -> Callable[[Trainer, Path], None]:
    """What makes a training meet a SIGTERM after so many steps."""

    def on_start(trainer: Trainer, path: Path) -> None:
        class Asked(type(trainer.step)):  # type: ignore[misc]
            def __call__(self, index: int, batch: vaezoo.Batch) -> None:
                super().__call__(index, batch)
                if index + 1 == step:
                    signal.raise_signal(signal.SIGTERM)

        trainer.step.__class__ = Asked

    return on_start


def stopped_run(folder: Path) -> Path:
    """Trains an mlp-vae with checkpoints at steps 0, 2 and 3, where it is stopped; two are to come."""
    config = TrainConfig(steps=5, eval_every=2, batch_size=10, ema_decay=0.9, device="cpu")
    with signals.handle_signals(), pytest.raises(signals.Stopped):
        vaezoo.train(
            "mlp-vae",
            data(folder),
            options={"hidden": [3], "latent_dim": 2},
            config=config,
            out=folder / "run",
            on_start=stop_at(STOP),
        )
    return folder / "run"


def seal(checkpoint: Path, **change: object) -> None:
    """Writes the manifest that the files of a checkpoint have now; `change` adds or replaces entries of files."""
    files: dict[str, object] = {}
    for name in ("model.safetensors", "objective.safetensors", "training.safetensors", "state.json"):
        file = checkpoint / name
        if file.is_file() and file.stat().st_size < 1 << 24:
            files[name] = entry(file.read_bytes())
    (checkpoint / "manifest.json").write_bytes(json_bytes({"schema": 1, "files": files | change}))


def entry(content: bytes) -> dict[str, object]:
    """What a manifest says of a file."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def taken_apart(file: Path) -> tuple[dict[str, Any], bytes]:
    """Returns the header of a safetensors file and the bytes behind it."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def put_together(header: Mapping[str, object] | bytes, payload: bytes, length: int | None = None) -> bytes:
    """Returns a safetensors file whose header says what it likes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + payload
