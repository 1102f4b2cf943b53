"""Writes reports and checkpoints into a run folder. The primary process writes for all."""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from vaezoo.core import distributed
from vaezoo.core.atomic import fsync, read_file, remove_dir, storage_errors, write_file
from vaezoo.core.image_grids import as_bytes, grid_columns, image_grid, png
from vaezoo.core.json_io import read_json_lines
from vaezoo.errors import InputError, VaezooWarning
from vaezoo.objectives.base import Objective
from vaezoo.training.checkpoint import Checkpoint, prune, save_checkpoint
from vaezoo.training.reports import Report
from vaezoo.training.trainer import TrainerState

LOG = "metrics.jsonl"
LOG_CSV = "metrics.csv"
SAMPLES = "samples"
CHECKPOINTS = "checkpoints"
MAX_LOG_BYTES = 1 << 28  # a report every 50 steps has 200 bytes, so this is the log of 60 million steps


def read_log(path: Path) -> list[dict[str, object]]:
    """Returns the reports in a run folder, oldest first. An incomplete last line is left out.

    Raises:
        InputError: If the log is missing or damaged.
    """
    return read_json_lines(path / LOG, MAX_LOG_BYTES)


class RunWriter:
    """Writes the reports and checkpoints of a training.

    Args:
        path: The run folder.
        vae: The model, on any device.
        objective: Its objective.
        on_report: Called with each report. That of an evaluation follows when its checkpoint is safe on the disk.
        log_csv: Whether to write the log as a table, too.
    """

    def __init__(
        self,
        path: Path,
        vae: nn.Module,
        objective: Objective,
        on_report: Callable[[Report], None],
        *,
        log_csv: bool = False,
    ) -> None:
        self.path = path
        self.log_csv = log_csv
        self.log = path / LOG
        self.checkpoints = path / CHECKPOINTS
        self.vae = vae
        self.objective = objective
        self.on_report = on_report
        self.unsaved: Report | None = None

    def report(self, report: Report) -> None:
        """Appends a report to the log. The log holds no times, so the same run writes the same bytes."""
        if distributed.rank():
            return
        line = {"split": report.split, "step": report.step, "epoch": report.epoch, "lr": report.lr, **report.metrics}
        with storage_errors(str(self.log)), self.log.open("a", newline="\n") as f:
            f.write(json.dumps(line, allow_nan=False) + "\n")
        if report.split == "valid":
            self.unsaved = report
        else:
            self.on_report(report)

    def samples(self, step: int, images: Tensor) -> None:
        """Writes a grid of images as `samples/step-N.png`."""
        grid = image_grid(as_bytes(images.numpy()), grid_columns(len(images)))
        write_file(self.path / SAMPLES / f"step-{step:08d}.png", png(grid))

    def checkpoint(self, state: TrainerState) -> None:
        """Saves a checkpoint and removes those that are no longer needed."""
        if distributed.rank():
            return
        files = {
            "model": self.vae.state_dict(),
            "objective": self.objective.state_dict(),
            "training": state.tensors,
        }
        counters = {**state.counters, "log_bytes": self._sync_log()}
        save_checkpoint(self.checkpoints, files, state.step, state.metrics, counters)
        prune(self.checkpoints, self.objective.monitor)
        self._write_csv()
        if self.unsaved:
            self.on_report(self.unsaved)
            self.unsaved = None

    def truncate(self, checkpoint: Checkpoint | None) -> None:
        """Removes the reports and checkpoints after `checkpoint`, or all of them if it is None.

        Newer checkpoints are removed even if they are damaged. The training writes them again. Older damaged ones stay.

        Raises:
            InputError: If the checkpoint records no valid length of the log.
        """
        log_bytes = 0 if checkpoint is None else checkpoint.counters.get("log_bytes")
        if type(log_bytes) is not int or log_bytes < 0:
            raise InputError(f"{self.checkpoints} is damaged: the log has {log_bytes} bytes", "train again")
        log = read_file(self.log, MAX_LOG_BYTES) if self.log.exists() else b""
        if len(log) < log_bytes:
            what = f"{self.log} is shorter than it was: reports of steps before the checkpoint are missing"
            warnings.warn(what, VaezooWarning, stacklevel=2)
        if self.log.exists():
            write_file(self.log, log[:log_bytes])  # a new file: the old one may be a hard link to another place
        for path in self.checkpoints.glob("step-*"):
            if checkpoint is None or path.name > checkpoint.path.name:
                remove_dir(path)
        prune(self.checkpoints, self.objective.monitor)  # a save that was interrupted may not have done so
        self._write_csv()

    def _write_csv(self) -> None:
        """Writes the log as a table. It is made of the log alone, so a resumed training writes the same bytes."""
        if not self.log_csv or not self.log.exists():
            return
        reports = read_log(self.path)
        columns = list(dict.fromkeys(name for report in reports for name in report))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(reports)
        write_file(self.path / LOG_CSV, text.getvalue().encode())

    def _sync_log(self) -> int:
        """Writes the log to the disk and returns its size, which the next checkpoint records."""
        if not self.log.exists():
            return 0
        with storage_errors(str(self.log)):
            fsync(self.log)
            fsync(self.log.parent)
            return self.log.stat().st_size
