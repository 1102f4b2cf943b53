"""What a training writes into its run folder while it works: reports and checkpoints. Rank 0 writes for all."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

from torch import nn

from vaezoo.core import distributed
from vaezoo.core.atomic import fsync, read_file, remove_dir, storage_errors, write_file
from vaezoo.core.json_io import read_json_lines
from vaezoo.errors import InputError, VaezooWarning
from vaezoo.objectives.base import Objective
from vaezoo.training.checkpoint import Checkpoint, prune, save_checkpoint
from vaezoo.training.reports import Report
from vaezoo.training.trainer import TrainerState

LOG = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
MAX_LOG_BYTES = 1 << 28  # bytes; a report every 50 steps has 200, so this is the log of 60 million steps


def read_log(path: Path) -> list[dict[str, object]]:
    """Returns the reports of a run folder, in the order in which they were made; the last may be unfinished.

    Raises:
        InputError: If the log is missing or damaged.
    """
    return read_json_lines(path / LOG, MAX_LOG_BYTES)


class RunWriter:
    """Writes reports and checkpoints.

    Args:
        path: The run folder.
        vae: The model, on whatever device.
        objective: What it is trained with.
        on_report: Told each report; that of an evaluation when its checkpoint is safe on the disk.
    """

    def __init__(self, path: Path, vae: nn.Module, objective: Objective, on_report: Callable[[Report], None]) -> None:
        self.log = path / LOG
        self.checkpoints = path / CHECKPOINTS
        self.vae = vae
        self.objective = objective
        self.on_report = on_report
        self.unsaved: Report | None = None

    def report(self, report: Report) -> None:
        """Adds a report to the log. No times stand there: the same run writes the same bytes."""
        if distributed.rank():
            return
        line = {"split": report.split, "step": report.step, "epoch": report.epoch, "lr": report.lr, **report.metrics}
        with storage_errors(str(self.log)), self.log.open("a") as f:
            f.write(json.dumps(line, allow_nan=False) + "\n")
        if report.split == "valid":
            self.unsaved = report
        else:
            self.on_report(report)

    def checkpoint(self, snapshot: TrainerState) -> None:
        """Saves a snapshot, and removes what need not be kept any more."""
        if distributed.rank():
            return
        parts = {
            "model": self.vae.state_dict(),
            "objective": self.objective.state_dict(),
            "training": snapshot.tensors,
        }
        counters = {**snapshot.counters, "log": self._log_bytes()}
        save_checkpoint(self.checkpoints, parts, snapshot.step, snapshot.metrics, counters)
        prune(self.checkpoints, self.objective.monitor)
        if self.unsaved:
            self.on_report(self.unsaved)
            self.unsaved = None

    def rewind(self, found: Checkpoint | None) -> None:
        """Brings the folder back to a checkpoint, or to the start: what was written after it will be written again."""
        kept = 0 if found is None else found.counters.get("log")
        if type(kept) is not int or kept < 0:
            raise InputError(f"{self.checkpoints} is damaged: the log has {kept} bytes", "train again")
        there = read_file(self.log, MAX_LOG_BYTES) if self.log.exists() else b""
        if len(there) < kept:
            what = f"{self.log} is shorter than it was: reports of steps before the checkpoint are missing"
            warnings.warn(what, VaezooWarning, stacklevel=2)
        if self.log.exists():
            write_file(self.log, there[:kept])  # a new file: the old one may have a second name elsewhere
        for path in self.checkpoints.glob("step-*"):
            if found is None or path.name > found.path.name:
                remove_dir(path)
        prune(self.checkpoints, self.objective.monitor)  # a save that was cut off behind its checkpoint did not

    def _log_bytes(self) -> int:
        """Returns how much of the log belongs to the checkpoint that is about to be saved, once it is on the disk."""
        if not self.log.exists():
            return 0
        with storage_errors(str(self.log)):
            fsync(self.log)
            fsync(self.log.parent)
            return self.log.stat().st_size
