"""The output of `vaezoo train`: progress on stderr, the result on stdout."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from vaezoo_cli.render.console import ERR, OUT, show_shape
from vaezoo_cli.render.data import data_lines

if TYPE_CHECKING:
    from vaezoo import Dataset, DataSpec, Report, Run, Trainer


TERMS = ("-ELBO", "reconstruction")
SCORE_TERMS = ("score + KL", "score")  # of a model whose p(x|z) is a score, which has no ELBO
QUIET_SECONDS = 30.0  # between two lines of output to a file or a pipe


class TrainingView:
    """Shows the progress of a training: a live bar on a terminal, and one line for each evaluation.

    Output to a file or a pipe has no bar. There a line with the step is printed after 30 s without output.

    Args:
        silent: Whether to show nothing.
        clock: Returns the time in seconds.
    """

    def __init__(self, silent: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[note]}"))
        self.silent = silent
        self.bar = Progress(*columns, console=ERR, disable=silent or not ERR.is_terminal, transient=True)
        self.task = self.bar.add_task("starting", note="")
        self.rates: list[float] = []  # examples per second
        self.trainer: Trainer | None = None
        self.noun = "example"
        self.dataset: Dataset | None = None  # is described at the start, if it is set before
        self.clock = clock
        self.last_line = clock()
        self.note = ""
        self.total, self.term = TERMS
        self.stopped = threading.Event()
        self.ticker: threading.Thread | None = None

    def __enter__(self) -> TrainingView:
        self.bar.start()
        if not (self.silent or ERR.is_terminal):
            self.ticker = threading.Thread(target=self._tick_until_stopped, daemon=True)
            self.ticker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.stopped.set()
        if self.ticker is not None:
            self.ticker.join()  # a thread that still runs when the interpreter ends can abort the process
        self.bar.stop()

    def _tick_until_stopped(self) -> None:
        while not self.stopped.wait(1.0):
            self.tick()

    def tick(self) -> None:
        """Prints the step that the training has reached, if nothing was printed for 30 s."""
        if self.trainer is not None and self.clock() - self.last_line >= QUIET_SECONDS:
            step, steps = self.trainer.global_step, self.trainer.steps
            self.line(f"step {step:,} of {steps:,}{self.note}")

    def start(self, trainer: Trainer, path: Path) -> None:
        """Describes the data and the training that starts."""
        for line in data_lines(self.dataset) if self.dataset is not None else []:
            self.line(escape(line))
        self.trainer = trainer
        data = trainer.vae.data
        self.noun = noun(data)
        parameters = sum(p.numel() for p in trainer.vae.parameters())
        self.line(
            f"{escape(data.name)} {show_shape(data.shape)}: {len(trainer.train_split):,} training and "
            f"{len(trainer.valid_split):,} validation examples; {data.likelihood}; {parameters:,} parameters; "
            f"{trainer.steps:,} steps on {trainer.device}{describe_settings(trainer)}"
        )
        self.total, self.term = terms_of(data)
        unit = f"in nats per {noun(data)}"
        if self.total == SCORE_TERMS[0]:
            unit = f"per {noun(data)}: {data.likelihood} is not a likelihood, so the sum is not a bound and not in nats"
        self.line(f"run folder {escape(str(path))}; metrics of the validation split, {unit}")
        if trainer.global_step:
            self.line(f"resuming after step {trainer.global_step:,}")

    def report(self, report: Report) -> None:
        """Shows one report."""
        if report.split == "train":
            self.rates.append(report.images_per_second)
        minutes, seconds = divmod(int(report.seconds_left), 60)
        elbo = f"{self.total} {-report.metrics['elbo']:.2f}"
        speed = f"{report.images_per_second:,.0f} {self.noun}s/s  {minutes}:{seconds:02d} left"
        self.bar.update(
            self.task,
            total=report.steps,
            completed=report.step,
            description=f"epoch {report.epoch:.1f} of {report.epochs:g}",
            note=f"{elbo}  {speed}",
        )
        self.note = f"  {elbo}  {speed}"
        if report.split == "valid":
            reconstruction, kl = report.metrics["reconstruction"], report.metrics["kl"]
            accuracy = describe_accuracy(report.metrics)
            terms = f"{elbo} = {self.term} {reconstruction:.2f} + KL {kl:.2f}{accuracy}"
            self.line(f"epoch {report.epoch:6.2f}  {terms}  {speed}")

    def line(self, text: str) -> None:
        """Prints a permanent line above the bar."""
        self.last_line = self.clock()
        if not self.silent:
            self.bar.console.print(text, soft_wrap=True)

    def speed(self) -> dict[str, float]:
        """Returns the median of the examples per second, and the peak memory in MiB. Empty if nothing was trained."""
        from vaezoo.core.memory import peak_memory

        if self.trainer is None or not self.rates:
            return {}
        return {
            "images_per_second": statistics.median(self.rates),
            "peak_memory_mib": peak_memory(self.trainer.device) / 2**20,
        }

    def finish(self, run: Run) -> None:
        """Prints the result, the written folder and the next commands."""
        split, metrics = run.result["split"], run.result["metrics"]
        assert isinstance(metrics, dict)
        total, term = terms_of(run.data)
        unit = "nats " if total == TERMS[0] else ""
        OUT.print(
            f"[bold]{split} {total} {-metrics['elbo']:.2f}[/] {unit}per {noun(run.data)} = {term} "
            f"{metrics['reconstruction']:.2f} + KL {metrics['kl']:.2f} "
            f"(z sampled; checkpoint of step {run.checkpoint.step:,}){describe_accuracy(metrics)}"
        )
        if "mse" in metrics:
            OUT.print(describe_error(metrics))
        if self.trainer and self.trainer.global_step < self.trainer.steps:
            OUT.print(f"early stopping at step {self.trainer.global_step:,} of {self.trainer.steps:,}")
        if speed := self.speed():
            rate, memory = speed.values()
            OUT.print(f"{rate:,.0f} {noun(run.data)}s/s (median), peak memory {memory:,.0f} MiB per process")
        else:
            OUT.print("the training was already finished")
        print_next_steps(run)

    def finish_fit(self, run: Run, first: Run) -> None:
        """Prints the result of a prior that was fitted to the codes of a first run, and the next commands."""
        split, metrics = run.result["split"], run.result["metrics"]
        assert isinstance(metrics, dict)
        OUT.print(
            f"{split} [bold]log p(z) {metrics['log_prior']:.2f}[/] nats per {noun(run.data)}; "
            f"-ELBO {-metrics['elbo']:.2f} = reconstruction {metrics['reconstruction']:.2f} + KL {metrics['kl']:.2f}"
        )
        before = first.result.get("metrics")
        if isinstance(before, dict) and "elbo" in before and first.result["split"] == split:
            OUT.print(f"{split} -ELBO with the prior of {escape(str(first.path))}: {-before['elbo']:.2f}")
        print_next_steps(run)


def print_next_steps(run: Run) -> None:
    """Prints the folder of a finished run and the next commands."""
    path = escape(str(run.path))
    OUT.print(f"\nwritten  {path}/\nnext     vaezoo sample {path}", soft_wrap=True)
    OUT.print(f"         vaezoo reconstruct {path}\n         vaezoo export {path} --onnx", soft_wrap=True)


def describe_accuracy(metrics: Mapping[str, float]) -> str:
    """Returns the accuracy of the labels that a model infers, such as ", accuracy 95.2 %". Empty for other models."""
    return f", accuracy {metrics['accuracy']:.1%}" if "accuracy" in metrics else ""


def describe_error(metrics: Mapping[str, float]) -> str:
    """Returns what the reconstructions of a finished training miss, beside the variance of the data."""
    text = f"reconstructions: mean squared error {metrics['mse']:.3g}"
    if "explained_variance" in metrics:
        text += f", {max(0.0, metrics['explained_variance']):.0%} of the variance of the data explained"
    return text


def describe_settings(trainer: Trainer) -> str:
    """Returns the notable settings of a training, such as ", bf16, compiled (the first step takes longer)"."""
    from vaezoo.core import distributed

    config = trainer.config
    notes = [
        (distributed.world_size() > 1, f"{distributed.world_size()} processes"),
        (config.precision != "fp32", config.precision),
        (config.grad_accum_steps > 1, f"{config.grad_accum_steps} gradient accumulation steps"),
        (config.compile == "on", "compiled (the first step takes longer)"),
    ]
    return "".join(f", {text}" for applies, text in notes if applies)


def terms_of(data: DataSpec) -> tuple[str, str]:
    """Returns what -ELBO and the reconstruction term are called for the likelihood of some data."""
    from vaezoo.likelihoods.base import ReconstructionScore

    return SCORE_TERMS if isinstance(data.make_likelihood(), ReconstructionScore) else TERMS


def noun(data: DataSpec) -> str:
    """Returns what an example is called: an image, or an example of other data."""
    return "image" if len(data.shape) == 3 else "example"
