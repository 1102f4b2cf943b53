"""The training that the faults happen to: a few pixels, a checkpoint of about 10 kB, over in a fifth of a second."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

import vaezoo
from vaezoo import Dataset, Report, Run, TrainConfig
from vaezoo.core.atomic import TEMP_PREFIX
from vaezoo.training.checkpoint import list_checkpoints
from vaezoo.training.train import OnReport, OnStart

STEPS, EVERY = 8, 2
OPTIONS = {"latent_dim": 2, "hidden": [4]}


def data() -> Dataset:
    """Noise of 8 x 8 pixels."""
    x = np.random.default_rng(0).integers(0, 256, (40, 8, 8)).astype(np.uint8)
    return vaezoo.from_arrays(x, x_test=x[:8])


def config(**changes: object) -> TrainConfig:
    """The settings: five checkpoints, of which two or three are kept."""
    return TrainConfig(
        **{"steps": STEPS, "eval_every": EVERY, "batch_size": 6, "workers": 0, "device": "cpu"} | changes
    )  # type: ignore[arg-type]


def ignore(report: Report) -> None:
    pass


def idle(trainer: vaezoo.Trainer, path: Path) -> None:
    pass


def go(path: Path, on_report: OnReport = ignore, on_start: OnStart = idle, **changes: object) -> Run:
    """Trains in a folder, from whatever is there: what a user does after a crash."""
    if (path / "run.json").exists():
        return vaezoo.resume(path, data(), on_report=on_report, on_start=on_start)
    settings = config(**changes)
    return vaezoo.train(
        "mlp-vae", data(), options=OPTIONS, config=settings, out=path, on_report=on_report, on_start=on_start
    )


def contents(path: Path) -> dict[str, str]:
    """Returns the SHA-256 of each file of a folder by its name: all but the lock and what `temporaries` returns."""
    files = {str(file.relative_to(path)): file for file in sorted(path.rglob("*")) if file.is_file()}
    return {
        name: hashlib.sha256(file.read_bytes()).hexdigest()
        for name, file in files.items()
        if name != ".lock" and TEMP_PREFIX not in name
    }


def temporaries(path: Path) -> list[str]:
    """Returns the names of things that are not finished."""
    return sorted(str(p.relative_to(path)) for p in path.rglob(f"{TEMP_PREFIX}*"))


def newest(path: Path) -> int:
    """Returns the step of the newest checkpoint; -1: there is none. All that bear a final name must be whole."""
    whole, damaged = list_checkpoints(path / "checkpoints")
    assert not damaged, f"half there: {damaged[0]}"
    return whole[-1].step if whole else -1
