"""Checkpoints: folders of safetensors and JSON with a SHA-256 manifest, whole or absent, best and newest kept.

checkpoints/step-00000700/
    model.safetensors       the VAE
    objective.safetensors   what the objective trains besides, if anything
    state.json              step, epoch, validation metrics
    manifest.json           size and SHA-256 of each of these
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from vaezoo.errors import InputError, VaezooError
from vaezoo.files import json_bytes, new_folder, read_json, sha256

SCHEMA = 1
KEEP_NEWEST = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk whose files are as its manifest says.

    Attributes:
        path: Its folder.
        step: Optimizer steps it has seen.
        metrics: Validation metrics at that step.
    """

    path: Path
    step: int
    metrics: Mapping[str, float]

    @property
    def model_sha256(self) -> str:
        """Identifies the weights."""
        return sha256(self.path / "model.safetensors")

    def restore(self, module: nn.Module, part: str) -> None:
        """Loads the weights of `part`, "model" or "objective", into a module.

        Raises:
            InputError: If the file is damaged, or its names, shapes, types or values do not fit the module.
        """
        file = self.path / f"{part}.safetensors"
        expected = module.state_dict()
        if not expected:  # an objective without weights has no file
            return
        if not file.exists():
            raise InputError(f"{file} is missing", "use another checkpoint with --checkpoint")
        data = file.read_bytes()
        verify(self.path, file.name, data)
        try:
            tensors = load_tensors(data)  # the bytes that were hashed, not the file again
        except SafetensorError as e:
            raise InputError(f"{file} is damaged: {e}", "use another checkpoint with --checkpoint") from e
        described = {name: (tuple(t.shape), t.dtype) for name, t in tensors.items()}
        if described != {name: (tuple(t.shape), t.dtype) for name, t in expected.items()}:
            raise InputError(f"{file} holds other tensors than the model has", "use the model's version that wrote it")
        if not all(bool(torch.isfinite(t).all()) for t in tensors.values()):
            raise InputError(f"{file} holds values that are not finite", "use another checkpoint with --checkpoint")
        module.load_state_dict(tensors)


def save_checkpoint(
    folder: Path, vae: nn.Module, objective: nn.Module, step: int, metrics: Mapping[str, float]
) -> None:
    """Writes `folder/step-N` whole.

    Raises:
        StorageError: If writing fails; nothing is left then.
    """
    files = {"model.safetensors": _pack(vae)}
    if objective.state_dict():
        files["objective.safetensors"] = _pack(objective)
    files["state.json"] = json_bytes({"schema": SCHEMA, "step": step, "metrics": dict(metrics)})
    manifest = {name: {"bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for name, d in files.items()}
    files["manifest.json"] = json_bytes({"schema": SCHEMA, "files": manifest})
    with new_folder(folder / f"step-{step:08d}") as work:
        for name, data in files.items():
            (work / name).write_bytes(data)


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """Returns the checkpoints in a folder, oldest first; what is damaged is left out."""
    found = []
    for path in sorted(folder.glob("step-*")):
        try:
            state = read_json(path / "state.json")
            verify(path, "state.json", (path / "state.json").read_bytes())
            found.append(Checkpoint(path, int(str(state["step"])), _metrics(state["metrics"])))
        except (VaezooError, OSError, KeyError, TypeError, ValueError, OverflowError):
            continue
    return found


def find_checkpoint(folder: Path, which: str, monitor: str | None) -> Checkpoint:
    """Returns one checkpoint.

    Args:
        folder: Where they lie.
        which: "best", "last" or a step.
        monitor: The metric of which the best has the highest; None: the last is the best.

    Raises:
        InputError: If there is none.
    """
    there = list_checkpoints(folder)
    if which == "last" or (which == "best" and monitor is None):
        matches = there[-1:]
    elif which == "best":
        matches = sorted(there, key=lambda c: c.metrics.get(str(monitor), -math.inf))[-1:]
    else:
        matches = [c for c in there if str(c.step) == which]
    if not matches:
        steps = ", ".join(str(c.step) for c in there)
        if not there:
            raise InputError(f"{folder} holds no whole checkpoint", "train again")
        hint = f"use best, last or one of the steps {steps}"
        raise InputError(f"{folder} has no checkpoint '{which}'", hint)
    return matches[0]


def prune(folder: Path, monitor: str | None) -> None:
    """Removes all checkpoints but the best and the newest two."""
    there = list_checkpoints(folder)
    if there:
        kept = {c.path for c in there[-KEEP_NEWEST:]} | {find_checkpoint(folder, "best", monitor).path}
        for checkpoint in there:
            if checkpoint.path not in kept:
                shutil.rmtree(checkpoint.path, ignore_errors=True)


def verify(folder: Path, name: str, data: bytes) -> None:
    """Raises InputError unless `data` is what the folder's manifest says of file `name`."""
    files = read_json(folder / "manifest.json").get("files")
    entry = files.get(name) if isinstance(files, dict) else None
    told = entry.get("sha256") if isinstance(entry, dict) else None
    if told != hashlib.sha256(data).hexdigest():
        raise InputError(
            f"{folder / name}: its SHA-256 differs from the manifest's; damaged or changed after saving",
            "use another checkpoint with --checkpoint",
        )


def _metrics(value: object) -> dict[str, float]:
    if not isinstance(value, dict):
        raise ValueError
    return {str(name): float(number) for name, number in value.items()}


def _pack(module: nn.Module) -> bytes:
    # Weights that share memory would be refused; each name gets its own copy.
    return save_tensors({name: t.detach().cpu().contiguous().clone() for name, t in module.state_dict().items()})
