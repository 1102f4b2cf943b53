"""The training that the faults happen to: images of 64 pixels, checkpoints of 10 kB, a fifth of a second in all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

import vaezoo
from vaezoo import Dataset, Report, Run, TrainConfig
from vaezoo.core.atomic import TEMP_PREFIX
from vaezoo.training.checkpoint import list_checkpoints
from vaezoo.training.train import OnReport, OnStart

STEPS, EVAL_EVERY = 8, 2
OPTIONS = {"latent_dim": 2, "hidden": [4]}


def make_data() -> Dataset:
    """Returns 40 images of uniform noise, 8 x 8 pixels each."""
    x = np.random.default_rng(0).integers(0, 256, (40, 8, 8)).astype(np.uint8)
    return vaezoo.from_arrays(x, x_test=x[:8])


def make_config(**changes: object) -> TrainConfig:
    """Returns the settings. The training saves five checkpoints and keeps two or three of them."""
    settings = {"steps": STEPS, "eval_every": EVAL_EVERY, "batch_size": 6, "workers": 0, "device": "cpu"}
    return TrainConfig(**settings | changes)  # type: ignore[arg-type]


def ignore_report(report: Report) -> None:
    pass


def do_nothing(trainer: vaezoo.Trainer, path: Path) -> None:
    pass


def train_or_resume(
    path: Path, on_report: OnReport = ignore_report, on_start: OnStart = do_nothing, **changes: object
) -> Run:
    """Starts a training, or resumes the one in the folder, as a user does after a crash."""
    if (path / "run.json").exists():
        return vaezoo.resume(path, make_data(), on_report=on_report, on_start=on_start)
    config = make_config(**changes)
    return vaezoo.train(
        "mlp-vae", make_data(), options=OPTIONS, config=config, out=path, on_report=on_report, on_start=on_start
    )


def file_hashes(path: Path) -> dict[str, str]:
    """Returns the SHA-256 of each file by its relative path, without the lock and temporary files."""
    files = {str(file.relative_to(path)): file for file in sorted(path.rglob("*")) if file.is_file()}
    return {
        name: hashlib.sha256(file.read_bytes()).hexdigest()
        for name, file in files.items()
        if name != ".lock" and TEMP_PREFIX not in name
    }


def temp_files(path: Path) -> list[str]:
    """Returns the relative paths of temporary files and folders."""
    return sorted(str(p.relative_to(path)) for p in path.rglob(f"{TEMP_PREFIX}*"))


def newest_step(path: Path) -> int:
    """Returns the step of the newest checkpoint, or -1 if there is none.

    Raises:
        AssertionError: If a checkpoint is incomplete.
    """
    complete, damaged = list_checkpoints(path / "checkpoints")
    assert not damaged, f"incomplete: {damaged[0]}"
    return complete[-1].step if complete else -1
