"""Checkpoints: folders of safetensors and JSON with a SHA-256 manifest, whole or absent, best and newest kept.

checkpoints/step-00000700/
    model.safetensors       the VAE, averaged where the training averages
    objective.safetensors   what the objective trains besides, if anything
    training.safetensors    what it takes to go on: optimizers, sums of metrics, the newest weights behind an average
    state.json              step, metrics of the evaluation at this step, and the training's counters
    manifest.json           size and SHA-256 of each of these
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from vaezoo.core.atomic import atomic_dir, read_file, remove_dir, sha256
from vaezoo.core.json_io import MAX_JSON_BYTES, json_bytes, read_json
from vaezoo.errors import DivergedError, InputError, VaezooWarning, safe_repr

SCHEMA = 2
KEEP_NEWEST = 2
USE_ANOTHER = "use another checkpoint"  # the hint where one is damaged
MAX_HEADER_BYTES = 1 << 20  # bytes of a tensor file besides its tensors; safetensors itself would take 100 MB
MAX_FILES = 8  # files in a manifest; we write four
MAX_FILE_BYTES = 1 << 34  # of a file, where nobody knows the model
PART = re.compile(r"[a-z]{1,20}\.(safetensors|json)")  # names of files in a manifest

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk whose files are as its manifest says.

    Attributes:
        path: Its folder.
        step: Optimizer steps it has seen.
        metrics: Validation metrics at that step; empty where a training was stopped between two evaluations.
        counters: Where the training stood, as the Trainer has it.
    """

    path: Path
    step: int
    metrics: Mapping[str, float]
    counters: Mapping[str, object]

    @property
    def model_sha256(self) -> str:
        """Identifies the weights."""
        return sha256(self.path / "model.safetensors")

    def restore(self, module: nn.Module, part: str, *, halved: bool = False) -> None:
        """Loads the weights of `part`, "model" or "objective", into a module; for `halved` see `read`.

        Raises:
            InputError: If the file is damaged, or its names, shapes, types or values do not fit the module.
        """
        module.load_state_dict(self.read(part, module.state_dict(), halved=halved))

    def read(self, part: str, expected: Tensors, *, halved: bool = False) -> dict[str, Tensor]:
        """Returns the tensors of a part: on the CPU, finite, of the names, shapes and types of those `expected`.

        If they are `halved`, as pretrained models are, they lie in float16 and are brought to float32.

        Raises:
            InputError: If the file is damaged or holds something else.
        """
        if not expected:  # an objective without weights has no file
            return {}
        file = self.path / f"{part}.safetensors"
        room = sum(t.numel() * t.element_size() for t in expected.values())
        data = read_file(file, room + MAX_HEADER_BYTES)
        verify(file, data, _manifest(self.path).get(file.name))
        tensors = unpack(data, file)  # the bytes that were hashed, not the file again
        if halved:
            tensors = {name: t.float() if t.dtype == torch.float16 else t for name, t in tensors.items()}
        described = {name: (tuple(t.shape), t.dtype) for name, t in tensors.items()}
        if described != {name: (tuple(t.shape), t.dtype) for name, t in expected.items()}:
            raise InputError(f"{file} holds other tensors than the model has", "use the model's version that wrote it")
        if bad := not_finite(tensors):
            raise InputError(f"{file} holds values that are not finite, in {bad}", USE_ANOTHER)
        return tensors


def save_checkpoint(
    folder: Path, parts: Mapping[str, Tensors], step: int, metrics: Mapping[str, float], counters: Mapping[str, object]
) -> None:
    """Writes `folder/step-N` whole; what stands there under this name was damaged, and is replaced.

    Args:
        folder: Where the checkpoints of a training lie.
        parts: Name of a file, without its suffix -> its tensors; a part without tensors has no file.
        step: See Checkpoint, as for `metrics` and `counters`.

    Raises:
        DivergedError: If a tensor is not finite.
        StorageError: If writing fails; nothing is left then.
    """
    for part, tensors in parts.items():
        if bad := not_finite(tensors):
            raise DivergedError(
                f"training diverged: after step {step} the {part} holds values that are not finite, in {bad}",
                "begin a new run with a lower --lr, --clip-grad 1 or --kl-warmup",
            )
    files = {f"{part}.safetensors": _pack(tensors) for part, tensors in parts.items() if tensors}
    state = {"schema": SCHEMA, "step": step, "metrics": dict(metrics), "counters": dict(counters)}
    files["state.json"] = json_bytes(state)
    files["manifest.json"] = _manifest_bytes({name: _entry(d) for name, d in files.items()})
    with atomic_dir(folder / f"step-{step:08d}", replace=True) as work:
        for name, data in files.items():
            (work / name).write_bytes(data)


def list_checkpoints(
    folder: Path, most: int = MAX_FILE_BYTES, *, hashed: bool = True
) -> tuple[list[Checkpoint], list[InputError]]:
    """Returns the whole checkpoints in a folder, oldest first, and what is wrong with each other one.

    For `most` and `hashed` see `open_checkpoint`.
    """
    whole, damaged = [], []
    for path in sorted(folder.glob("step-*")):
        try:
            whole.append(open_checkpoint(path, most, hashed=hashed))
        except InputError as e:
            damaged.append(e)
    return sorted(whole, key=lambda c: c.step), damaged


def open_checkpoint(path: Path, most: int = MAX_FILE_BYTES, *, hashed: bool = True) -> Checkpoint:
    """Opens a checkpoint after comparing its files with its manifest.

    Args:
        path: The checkpoint.
        most: Bytes that a file may have, or it is not read.
        hashed: Compares the hashes of all files; else only that of state.json, and the others' sizes.

    Raises:
        InputError: If a file is missing, damaged or not what it should be.
    """
    for name, entry in _manifest(path).items():
        size = entry.get("bytes")
        if type(size) is not int or size > most:
            raise InputError(f"{path / name} is damaged: {safe_repr(size)} bytes by the manifest", USE_ANOTHER)
        if hashed or name == "state.json":
            verify(path / name, read_file(path / name, size), entry)
        elif not (path / name).is_file() or (path / name).stat().st_size != size:
            raise InputError(f"{path / name} is missing or has another size than it had", USE_ANOTHER)
    state = read_json(path / "state.json")
    check_schema(path / "state.json", state, SCHEMA)
    try:
        step, metrics, counters = state["step"], state["metrics"], state["counters"]
        if type(step) is not int or step < 0 or path.name != f"step-{step:08d}":
            raise ValueError(f"step {step}")
        if not isinstance(counters, dict):
            raise ValueError("counters")
        return Checkpoint(path, step, numbers(metrics), counters)
    except (KeyError, ValueError, OverflowError, TypeError) as e:
        raise InputError(f"{path / 'state.json'} is damaged: {e}", USE_ANOTHER) from e


def find_checkpoint(folder: Path, which: str, monitor: str | None, most: int = MAX_FILE_BYTES) -> Checkpoint:
    """Returns one checkpoint. If others are damaged, and one of them might have been meant, a warning says so.

    Args:
        folder: Where they lie.
        which: "best", "last" or a step.
        monitor: The metric of which the best has the highest; None: the last is the best.
        most: Bytes that a file may have.

    Raises:
        InputError: If there is none.
    """
    there, damaged = list_checkpoints(folder, most)
    if which == "best" and monitor is not None:
        ranked = [c for c in there if monitor in c.metrics] or there
        matches = sorted(ranked, key=lambda c: c.metrics.get(monitor, -math.inf))[-1:]
    elif which in ("best", "last"):
        matches = there[-1:]
    else:
        matches = [c for c in there if str(c.step) == which]
    if matches:
        for error in damaged if which in ("best", "last") else []:
            warnings.warn(f"{error.message}; taking step {matches[0].step}", VaezooWarning, stacklevel=2)
        return matches[0]
    if damaged:
        newest = damaged[-1]
        lost = not there and newest.hint == USE_ANOTHER  # not so if another version of vaezoo wrote it
        raise InputError(newest.message, "train again: no other checkpoint is whole") if lost else newest
    if not there:
        raise InputError(f"{folder} holds no checkpoint", "train again")
    steps = ", ".join(str(c.step) for c in there)
    raise InputError(f"{folder} has no checkpoint '{which}'", f"use best, last or one of the steps {steps}")


def prune(folder: Path, monitor: str | None) -> None:
    """Removes all checkpoints but the best and the newest two of those with metrics, and what is newer than these.

    Damaged ones count for nothing, and are left for people to look at.
    """
    there, _ = list_checkpoints(folder, hashed=False)  # after each save: hashing all took half of its time
    evaluated = [c for c in there if c.metrics]
    if not evaluated:
        return
    best = max(evaluated, key=lambda c: c.metrics.get(monitor, -math.inf)) if monitor else evaluated[-1]
    kept = {c.path for c in [*evaluated[-KEEP_NEWEST:], best]}
    for checkpoint in there:
        if checkpoint.path not in kept and checkpoint.step < evaluated[-1].step:
            remove_dir(checkpoint.path)


def unpack(data: bytes, file: Path) -> dict[str, Tensor]:
    """Returns the tensors in the bytes of a safetensors file.

    Raises:
        InputError: If they are damaged, or their header is larger than any of ours.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        if length > MAX_HEADER_BYTES:  # ten million names would take gigabytes
            raise ValueError("its header is too large")
        tensors = load_tensors(data)
        names = [name for name, _ in json.loads(data[8 : 8 + length], object_pairs_hook=list)]
        if len(set(names)) < len(names):  # of which safetensors takes the last
            raise ValueError("a name stands twice")
        return tensors
    except (SafetensorError, ValueError, KeyError) as e:
        raise InputError(f"{file} is damaged: {e}", USE_ANOTHER) from e


def verify(file: Path, data: bytes, entry: object) -> None:
    """Raises InputError unless `data` is what the manifest's entry says of a file."""
    if entry != _entry(data):
        raise InputError(
            f"{file}: its SHA-256 differs from the manifest's; damaged or changed after saving",
            USE_ANOTHER,
        )


def not_finite(tensors: Tensors) -> str | None:
    """Returns the name of a tensor with a NaN or an infinity; None if there is none."""
    # A finite sum has finite terms. It takes a seventh of the time of looking at each, which counts in small saves.
    suspects = (name for name, t in tensors.items() if not bool(t.sum().isfinite()))
    return next((name for name in suspects if not bool(tensors[name].isfinite().all())), None)


def _manifest(folder: Path) -> dict[str, dict[str, object]]:
    """Returns what a manifest says of each file, if it is, to its last space, as we write it."""
    file = folder / "manifest.json"
    told = read_json(file)
    check_schema(file, told, SCHEMA)
    files = told.get("files")
    if not isinstance(files, dict) or "state.json" not in files or len(files) > MAX_FILES:
        raise InputError(f"{file} is damaged: files", USE_ANOTHER)
    for name, entry in files.items():
        if not PART.fullmatch(name) or not isinstance(entry, dict):
            raise InputError(f"{file} is damaged: file {safe_repr(name)}", USE_ANOTHER)
    if read_file(file, MAX_JSON_BYTES) != _manifest_bytes(files):
        raise InputError(f"{file} is damaged: not as it was written", USE_ANOTHER)
    return files


def _entry(data: bytes) -> dict[str, object]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _manifest_bytes(entries: Mapping[str, Mapping[str, object]]) -> bytes:
    """Returns a manifest as it is written, and as it has to be when it is read."""
    return json_bytes({"schema": SCHEMA, "files": dict(entries)})


def check_schema(file: Path, told: Mapping[str, object], ours: int) -> None:
    """Raises InputError if a file says that another version of vaezoo wrote it."""
    schema = told.get("schema")
    if type(schema) is not int or schema != ours:
        raise InputError(f"{file} has schema {safe_repr(schema)}; this version reads {ours}", "update vaezoo")


def numbers(value: object) -> dict[str, float]:
    """Returns the metrics that a JSON file has; raises ValueError or OverflowError if it holds something else."""
    if not isinstance(value, dict):
        raise ValueError("metrics")
    if not all(type(number) in (int, float) for number in value.values()):
        raise ValueError("metrics")
    return {name: float(number) for name, number in value.items()}


def _pack(tensors: Tensors) -> bytes:
    # Weights that share memory would be refused; each name gets its own copy.
    return save_tensors({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()})
