"""`progress=True`: a training started in Python shows the progress that the command line shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vaezoo.core import distributed
from vaezoo.training.reports import Report
from vaezoo.training.trainer import Trainer

OnReport = Callable[[Report], None]
OnStart = Callable[[Trainer, Path], None]


@contextmanager
def progress_view(progress: bool, on_report: OnReport, on_start: OnStart) -> Iterator[tuple[OnReport, OnStart]]:
    """Yields callbacks that also show the progress on stderr, or without `progress` the callbacks themselves."""
    if not progress:
        yield on_report, on_start
        return
    # The one import of the command line in the library: a live bar needs the styles and consoles of its other output,
    # and moving them here would bring rich into the library.
    from vaezoo_cli.render.train import TrainingView

    def start(trainer: Trainer, path: Path) -> None:
        view.start(trainer, path)
        on_start(trainer, path)

    def report(report: Report) -> None:
        view.report(report)
        on_report(report)

    with TrainingView(silent=not distributed.is_primary()) as view:
        yield report, start
