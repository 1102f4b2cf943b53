"""Checkpoints: folders of safetensors and JSON files with a SHA-256 manifest. The best and the newest are kept.

checkpoints/step-00000700/
    model.safetensors       the VAE, or its moving average if the training has one
    objective.safetensors   the objective's own weights, if it has any
    training.safetensors    the rest of the state: optimizers, sums of metrics, the weights behind an average
    state.json              step, metrics of the evaluation at this step, the training's counters
    manifest.json           size and SHA-256 of each of these files
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from vaezoo.core.atomic import atomic_dir, read_file, remove_dir
from vaezoo.core.json_io import MAX_JSON_BYTES, check_schema, json_bytes, read_json
from vaezoo.errors import DivergedError, InputError, VaezooWarning, safe_repr

SCHEMA = 2
KEEP_NEWEST = 2  # checkpoints with metrics, besides the best one
MAX_HEADER_BYTES = 1 << 20  # of a tensor file; safetensors itself would accept 100 MB
MAX_FILES = 8  # files in a manifest; vaezoo writes four
MAX_FILE_BYTES = 1 << 34  # of a file, if the model's size is not known
FILE_NAME = re.compile(r"[a-z]{1,20}\.(safetensors|json)")
USE_ANOTHER = "use another checkpoint"  # the hint for a damaged one

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk whose files match its manifest.

    Attributes:
        path: Its folder.
        step: Optimizer steps taken.
        metrics: Validation metrics at that step; empty if the training stopped between two evaluations.
        counters: The counters of the Trainer.
        model_sha256: SHA-256 of the file of the model's weights. A training that goes on may remove that file.
    """

    path: Path
    step: int
    metrics: Mapping[str, float]
    counters: Mapping[str, object]
    model_sha256: str

    def restore(self, module: nn.Module, name: str, *, fp16: bool = False) -> None:
        """Loads weights into a module.

        Args:
            module: The VAE or the objective.
            name: "model" or "objective".
            fp16: See `read`.

        Raises:
            InputError: If the file is damaged, or its names, shapes, types or values do not fit the module.
        """
        module.load_state_dict(self.read(name, module.state_dict(), fp16=fp16))

    def read(self, name: str, expected: Tensors, *, fp16: bool = False) -> dict[str, Tensor]:
        """Reads the tensors of a file to the CPU.

        Args:
            name: Name of the file, without its suffix.
            expected: Tensors with the expected names, shapes and types.
            fp16: The file holds float16, as those of pretrained models do. It is converted to float32.

        Raises:
            InputError: If the file is damaged, holds other tensors, or a value is not finite.
        """
        if not expected:  # an objective without weights has no file
            return {}
        file = self.path / f"{name}.safetensors"
        tensor_bytes = sum(t.numel() * t.element_size() for t in expected.values())
        data = read_file(file, tensor_bytes + MAX_HEADER_BYTES)
        verify(file, data, _read_manifest(self.path).get(file.name))
        tensors = unpack(data, file)  # the bytes that were hashed: the file may change meanwhile
        if fp16:
            tensors = {name: t.float() if t.dtype == torch.float16 else t for name, t in tensors.items()}
        if _signature(tensors) != _signature(expected):
            raise InputError(f"{file} holds other tensors than the model has", "use the model's version that wrote it")
        if bad := not_finite(tensors):
            raise InputError(f"{file} holds values that are not finite, in {bad}", USE_ANOTHER)
        return tensors


def save_checkpoint(
    folder: Path, files: Mapping[str, Tensors], step: int, metrics: Mapping[str, float], counters: Mapping[str, object]
) -> None:
    """Writes `folder/step-N` atomically. A folder of this name was damaged, and is replaced.

    Args:
        folder: The folder of a training's checkpoints.
        files: File name without suffix -> its tensors. A name without tensors gets no file.
        step: See Checkpoint, as for `metrics` and `counters`.

    Raises:
        DivergedError: If a tensor is not finite.
        StorageError: If writing fails; nothing remains then.
    """
    for name, tensors in files.items():
        if bad := not_finite(tensors):
            raise DivergedError(
                f"training diverged: after step {step} the {name} holds values that are not finite, in {bad}",
                "start a new run with a lower --lr, with --clip-grad 1 or with --kl-warmup",
            )
    contents = {f"{name}.safetensors": pack(tensors) for name, tensors in files.items() if tensors}
    state = {"schema": SCHEMA, "step": step, "metrics": dict(metrics), "counters": dict(counters)}
    contents["state.json"] = json_bytes(state)
    contents["manifest.json"] = _manifest_bytes({name: _entry(data) for name, data in contents.items()})
    with atomic_dir(folder / f"step-{step:08d}", replace=True) as work:
        for name, data in contents.items():
            (work / name).write_bytes(data)


def list_checkpoints(
    folder: Path, max_bytes: int = MAX_FILE_BYTES, *, hashed: bool = True
) -> tuple[list[Checkpoint], list[InputError]]:
    """Returns the complete checkpoints in a folder, oldest first, and the error of each damaged one.

    For `max_bytes` and `hashed` see `open_checkpoint`.
    """
    complete, damaged = [], []
    for path in sorted(folder.glob("step-*")):
        try:
            complete.append(open_checkpoint(path, max_bytes, hashed=hashed))
        except InputError as e:
            damaged.append(e)
    return sorted(complete, key=lambda c: c.step), damaged


def open_checkpoint(path: Path, max_bytes: int = MAX_FILE_BYTES, *, hashed: bool = True) -> Checkpoint:
    """Opens a checkpoint after comparing its files with its manifest.

    Args:
        path: The checkpoint.
        max_bytes: A file with more bytes is refused before it is read.
        hashed: Compare the hashes of all files. Otherwise only that of state.json, and the sizes of the others.

    Raises:
        InputError: If a file is missing, damaged or unexpected.
    """
    manifest = _read_manifest(path)
    for name, entry in manifest.items():
        size = entry.get("bytes")
        if type(size) is not int or size > max_bytes:
            raise InputError(f"{path / name} is damaged: {safe_repr(size)} bytes by the manifest", USE_ANOTHER)
        if hashed or name == "state.json":
            verify(path / name, read_file(path / name, size), entry)
        elif not (path / name).is_file() or (path / name).stat().st_size != size:
            raise InputError(f"{path / name} is missing, or its size has changed", USE_ANOTHER)
    state = read_json(path / "state.json")
    check_schema(path / "state.json", state, SCHEMA)
    try:
        step, metrics, counters = state["step"], state["metrics"], state["counters"]
        if type(step) is not int or step < 0 or path.name != f"step-{step:08d}":
            raise ValueError(f"step {step}")
        if not isinstance(counters, dict):
            raise ValueError("counters")
        digest = str(manifest.get("model.safetensors", {}).get("sha256", ""))
        return Checkpoint(path, step, parse_metrics(metrics), counters, digest)
    except (KeyError, ValueError, OverflowError, TypeError) as e:
        raise InputError(f"{path / 'state.json'} is damaged: {e}", USE_ANOTHER) from e


def find_checkpoint(folder: Path, which: str | int, monitor: str | None, max_bytes: int = MAX_FILE_BYTES) -> Checkpoint:
    """Returns one checkpoint. A warning names damaged ones that might have been chosen.

    Args:
        folder: The folder of the checkpoints.
        which: "best", "last" or a step.
        monitor: The metric that is highest at the best checkpoint. None: the last one is the best.
        max_bytes: A file with more bytes is refused.

    Raises:
        InputError: If there is none.
    """
    complete, damaged = list_checkpoints(folder, max_bytes)
    monitor = known_monitor(monitor, complete)
    if which == "best" and monitor is not None:
        evaluated = [c for c in complete if monitor in c.metrics] or complete
        matches = sorted(evaluated, key=lambda c: c.metrics.get(monitor, -math.inf))[-1:]
    elif which in ("best", "last"):
        matches = complete[-1:]
    else:
        matches = [c for c in complete if str(c.step) == str(which)]
    if matches:
        for error in damaged if which in ("best", "last") else []:
            warnings.warn(f"{error.message}; using step {matches[0].step}", VaezooWarning, stacklevel=2)
        return matches[0]
    if damaged:
        newest = damaged[-1]
        lost = not complete and newest.hint == USE_ANOTHER  # not lost if another version of vaezoo wrote it
        raise InputError(newest.message, "train again: no other checkpoint is complete") if lost else newest
    if not complete:
        raise InputError(f"{folder} holds no checkpoint", "train again")
    steps = ", ".join(str(c.step) for c in complete)
    raise InputError(f"{folder} has no checkpoint '{which}'", f"use best, last or one of the steps {steps}")


def known_monitor(monitor: str | None, checkpoints: Sequence[Checkpoint]) -> str | None:
    """Returns the metric that ranks checkpoints: `elbo`, which every objective reports, where none has `monitor`."""
    return monitor if monitor is None or any(monitor in c.metrics for c in checkpoints) else "elbo"


def prune(folder: Path, monitor: str | None) -> None:
    """Removes checkpoints. It keeps the best and the newest two with metrics, and all newer ones.

    It checks only sizes and the hash of state.json. Checkpoints that fail are not counted and not removed, so that
    users can inspect them. On resume, `RunWriter.truncate` removes those newer than the checkpoint that is used.
    """
    complete, _ = list_checkpoints(folder, hashed=False)  # hashing all files took half the time of a save
    evaluated = [c for c in complete if c.metrics]
    if not evaluated:
        return
    monitor = known_monitor(monitor, evaluated)
    best = max(evaluated, key=lambda c: c.metrics.get(monitor, -math.inf)) if monitor else evaluated[-1]
    kept = {c.path for c in [*evaluated[-KEEP_NEWEST:], best]}
    for checkpoint in complete:
        if checkpoint.path not in kept and checkpoint.step < evaluated[-1].step:
            remove_dir(checkpoint.path)


def unpack(data: bytes, file: Path) -> dict[str, Tensor]:
    """Returns the tensors in the bytes of a safetensors file.

    Raises:
        InputError: If they are damaged, or the header is larger than any that vaezoo writes.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        if length > MAX_HEADER_BYTES:  # ten million names would take gigabytes
            raise ValueError("its header is too large")
        tensors = load_tensors(data)
        names = [name for name, _ in json.loads(data[8 : 8 + length], object_pairs_hook=list)]
        if len(set(names)) < len(names):  # safetensors would use the last one
            raise ValueError("a name appears twice")
        return tensors
    except (SafetensorError, ValueError, KeyError) as e:
        raise InputError(f"{file} is damaged: {e}", USE_ANOTHER) from e


def verify(file: Path, data: bytes, entry: object) -> None:
    """Raises InputError unless `data` matches a file's entry in the manifest."""
    if entry != _entry(data):
        raise InputError(f"{file}: its SHA-256 differs from the manifest's; it was damaged or changed", USE_ANOTHER)


def not_finite(tensors: Tensors) -> str | None:
    """Returns the name of a tensor with a NaN or an infinity; None if there is none."""
    # A finite sum has finite terms. The sum takes a seventh of the time of testing each element.
    suspects = (name for name, t in tensors.items() if not bool(t.sum().isfinite()))
    return next((name for name in suspects if not bool(tensors[name].isfinite().all())), None)


def parse_metrics(value: object) -> dict[str, float]:
    """Returns the metrics of a JSON file; raises ValueError or OverflowError for anything else."""
    if not isinstance(value, dict):
        raise ValueError("metrics")
    if not all(type(number) in (int, float) for number in value.values()):
        raise ValueError("metrics")
    return {name: float(number) for name, number in value.items()}


def _signature(tensors: Tensors) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (tuple(t.shape), t.dtype) for name, t in tensors.items()}


def _read_manifest(folder: Path) -> dict[str, dict[str, object]]:
    """Returns the manifest's entry of each file. The manifest must have exactly the form in which it is written."""
    file = folder / "manifest.json"
    record = read_json(file)
    check_schema(file, record, SCHEMA)
    files = record.get("files")
    if not isinstance(files, dict) or "state.json" not in files or len(files) > MAX_FILES:
        raise InputError(f"{file} is damaged: files", USE_ANOTHER)
    for name, entry in files.items():
        if not FILE_NAME.fullmatch(name) or not isinstance(entry, dict):
            raise InputError(f"{file} is damaged: file {safe_repr(name)}", USE_ANOTHER)
    if read_file(file, MAX_JSON_BYTES) != _manifest_bytes(files):
        raise InputError(f"{file} is damaged: its bytes differ from those that vaezoo writes", USE_ANOTHER)
    return files


def _entry(data: bytes) -> dict[str, object]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _manifest_bytes(entries: Mapping[str, Mapping[str, object]]) -> bytes:
    return json_bytes({"schema": SCHEMA, "files": dict(entries)})


def pack(tensors: Tensors) -> bytes:
    """Returns tensors as the bytes of a safetensors file."""
    # safetensors refuses weights that share memory, so each name gets its own copy.
    return save_tensors({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()})
