"""Everything that is drawn on the terminal. Data goes to stdout, progress and notes to stderr."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

if TYPE_CHECKING:
    from vaezoo import ExportResult, Report, Run, Trainer, VerifyResult
    from vaezoo.doctor import Finding
    from vaezoo.export.tolerance import Parity
    from vaezoo.testing import CheckResult

PIPE_WIDTH = 200  # columns, where nobody says how wide the page is: lines that a script can search


class StdoutConsole(Console):
    """A console that takes a closed pipe (`vaezoo list | head`) for a reader who has seen enough."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        raise BrokenPipeError


class StderrConsole(Console):
    """A console for progress: when nobody reads it any more, the work goes on in silence."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


OUT = StdoutConsole(highlight=False, width=None if sys.stdout is not None and sys.stdout.isatty() else PIPE_WIDTH)
ERR = StderrConsole(stderr=True, highlight=False)


def table(*columns: str) -> Table:
    """Returns an empty table in the one style."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def render_models(models: Iterable[Mapping[str, str]]) -> None:
    """Draws the list of models."""
    made = table("model", "from", "what it is", "reference")
    for row in models:
        source = f"{row['distribution']} {row['version']}"
        made.add_row(f"[cyan]{row['name']}[/]", escape(source), escape(row["summary"]), escape(row["reference"]))
    OUT.print(made)


def render_datasets(datasets: Mapping[str, str]) -> None:
    """Draws the list of data sets."""
    made = table("data", "what it is")
    for name, description in datasets.items():
        made.add_row(f"[cyan]{name}[/]", escape(description))
    made.add_row("PATH", "an image folder, or arrays in a .npz or .npy file")
    OUT.print()
    OUT.print(made)


def render_model(described: Mapping[str, object]) -> None:
    """Draws what `vaezoo show` tells."""
    OUT.print(f"[bold cyan]{described['name']}[/]  {described['distribution']} {described['version']}")
    OUT.print(escape(f"{described['summary']}\n{described['reference']}\n"))
    options = table("option", "default", "takes", "what it does")
    for option in described["options"]:  # type: ignore[attr-defined]
        from vaezoo.spec import show_value

        options.add_row(
            option["name"], show_value(option["default"]) or "empty", option["type"], escape(option["help"])
        )
    OUT.print(options)
    inputs = table("input", "parameters")
    for row in described["inputs"]:  # type: ignore[attr-defined]
        parts = row["parameters"]
        total = sum(parts.values()) if parts else 0
        shown = f"{total:,} = " + " + ".join(f"{n} {c:,}" for n, c in parts.items()) if parts else "not supported"
        inputs.add_row(show_shape(row["shape"]), shown)
    OUT.print()
    OUT.print(inputs)


def show_shape(shape: Iterable[int]) -> str:
    """Writes an image's shape as 1x28x28."""
    sizes = [str(n) for n in shape]
    return "x".join(sizes) if len(sizes) > 1 else f"vector of {sizes[0]}"


def describe_settings(trainer: Trainer) -> str:
    """Says how a training differs from a plain one, `, in bf16, compiled: the first step takes longer`."""
    from vaezoo.core import distributed

    config = trainer.config
    said = [
        (distributed.world_size() > 1, f"{distributed.world_size()} processes"),
        (config.precision != "fp32", f"in {config.precision}"),
        (config.grad_accum_steps > 1, f"batches in {config.grad_accum_steps} parts"),
        (config.compile == "on", "compiled: the first step takes longer"),
    ]
    return "".join(f", {text}" for applies, text in said if applies)


class TrainingView:
    """Shows a training while it runs: a live bar on a terminal, plain lines elsewhere.

    Args:
        silent: Shows nothing.
    """

    def __init__(self, silent: bool = False) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[note]}"))
        self.silent = silent
        self.bar = Progress(*columns, console=ERR, disable=silent or not ERR.is_terminal, transient=True)
        self.task = self.bar.add_task("starting", note="")
        self.rates: list[float] = []  # images a second
        self.trainer: Trainer | None = None

    def __enter__(self) -> TrainingView:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def start(self, trainer: Trainer, path: Path) -> None:
        """Says what is about to be trained."""
        self.trainer = trainer
        n = sum(p.numel() for p in trainer.vae.parameters())
        data = trainer.vae.data
        self.line(
            f"{escape(data.name)} {show_shape(data.shape)}: {len(trainer.train_part):,} to train, "
            f"{len(trainer.valid_part):,} to validate; {data.likelihood}; {n:,} parameters; "
            f"{trainer.steps:,} steps on {trainer.device}{describe_settings(trainer)}"
        )
        self.line(f"run folder {escape(str(path))}; nats per image, validation part")
        if trainer.done:
            self.line(f"going on after step {trainer.done:,}")

    def report(self, report: Report) -> None:
        """Shows one report."""
        if report.split == "train":
            self.rates.append(report.images_per_second)
        left = f"{int(report.seconds_left) // 60}:{int(report.seconds_left) % 60:02d} left"
        bound = f"-ELBO {-report.metrics['elbo']:.2f}"
        self.bar.update(
            self.task,
            total=report.steps,
            completed=report.step,
            description=f"epoch {report.epoch:.1f} of {report.epochs:g}",
            note=f"{bound}  {report.images_per_second:,.0f} images/s  {left}",
        )
        if report.split == "valid":
            m = report.metrics
            self.line(
                f"epoch {report.epoch:6.2f}  {bound} = reconstruction {m['reconstruction']:.2f} + KL {m['kl']:.2f}  "
                f"{report.images_per_second:,.0f} images/s  {left}"
            )

    def line(self, text: str) -> None:
        """Writes a line that stays, above the bar."""
        if not self.silent:
            self.bar.console.print(text, soft_wrap=True)

    def speed(self) -> dict[str, float]:
        """Returns the median of the images a second, and the most memory that was taken, in MiB."""
        from vaezoo.core.memory import peak_memory

        if self.trainer is None or not self.rates:  # there was nothing left to train
            return {}
        return {
            "images_per_second": statistics.median(self.rates),
            "peak_memory_mib": peak_memory(self.trainer.device) / 2**20,
        }

    def finish(self, run: Run) -> None:
        """Says how it ended, what was written, and what to type next."""
        split, metrics = run.result["split"], run.result["metrics"]
        assert isinstance(metrics, dict)
        OUT.print(
            f"[bold]{split} -ELBO {-metrics['elbo']:.2f}[/] nats per image = reconstruction "
            f"{metrics['reconstruction']:.2f} + KL {metrics['kl']:.2f} "
            f"(z sampled; checkpoint of step {run.checkpoint.step})"
        )
        if self.trainer and self.trainer.done < self.trainer.steps:
            OUT.print(f"early stopping ended the training at step {self.trainer.done:,} of {self.trainer.steps:,}")
        if speed := self.speed():
            rate, memory = speed.values()
            OUT.print(f"{rate:,.0f} images/s (median of the reports), at most {memory:,.0f} MiB of memory in a process")
        else:
            OUT.print("the training was finished before")
        OUT.print(
            f"\nwritten  {escape(str(run.path))}/\nnext     vaezoo sample {escape(str(run.path))}", soft_wrap=True
        )
        for command in ("reconstruct", "export --onnx"):
            verb, _, flag = command.partition(" ")
            OUT.print(f"         vaezoo {verb} {escape(str(run.path))} {flag}".rstrip(), soft_wrap=True)


def render_export(exported: ExportResult) -> None:
    """Draws what was exported, how close it is to the model, and what to type next."""
    graphs, form, parity = (exported.manifest[key] for key in ("graphs", "format", "parity"))
    for part, graph in graphs.items():
        size = f"{exported.manifest['files'][f'{part}.onnx']['bytes'] / 1e6:.2f} MB"
        signature = f"{show_tensor(graph['input'])} -> {', '.join(map(show_tensor, graph['outputs']))}"
        OUT.print(f"[cyan]{part}.onnx[/]  {size}  {escape(signature)}", soft_wrap=True)
    OUT.print(f"opset {form['opset']}, {form['dtype']}\n")
    batches = ", ".join(str(n) for n in parity["batches"])
    render_parity(exported.parity, f"equal to the model in {parity['runtime']} on the CPU, batches {batches}")
    folder = escape(str(exported.path))
    OUT.print(f"\nwritten  {folder}/\nnext     vaezoo verify {folder}", soft_wrap=True)
    for verb in ("sample", "bench"):
        OUT.print(f"         vaezoo {verb} {folder}", soft_wrap=True)


def render_verified(verified: VerifyResult) -> None:
    """Draws what a check of an export found."""
    from vaezoo.export.tolerance import BATCHES

    batches = ", ".join(map(str, BATCHES))
    render_parity(
        verified.parity, f"equal to the golden outputs in {verified.runtime} on {verified.provider}, batches {batches}"
    )
    OUT.print(f"\n[green]ok[/]  {escape(str(verified.path))}: hashes, pair, structure, outputs", soft_wrap=True)


def render_parity(rows: Iterable[Parity], title: str) -> None:
    """Draws the largest differences of an export."""
    OUT.print(title)
    made = table("graph", "inputs", "output", "largest difference", "limit there")
    for row in rows:
        made.add_row(row.part, row.inputs, escape(row.output), f"{row.max_abs:.1e}", f"{row.limit:.1e}")
    OUT.print(made)


def show_tensor(value: Mapping[str, Any]) -> str:
    """Writes a graph's input or output as x[batch, 1, 28, 28]."""
    kind = "" if value["dtype"] == "float32" else f" {value['dtype']}"
    return f"{value['name']}[{', '.join(str(n) for n in value['shape'])}]{kind}"


def render_findings(findings: Iterable[Finding]) -> None:
    """Draws what `vaezoo doctor` found."""
    made = table("what", "state", "what mends it")
    for finding in findings:
        colour = "yellow" if finding.mend else "default"
        made.add_row(finding.subject, f"[{colour}]{escape(finding.state)}[/]", escape(finding.mend or ""))
    OUT.print(made)


def render_check(result: CheckResult) -> None:
    """Draws one check of the conformance suite."""
    mark = "[green]ok[/]  " if result.failure is None else "[red]FAIL[/]"
    OUT.print(f"{mark}  {result.name}: {result.demand}", soft_wrap=True)
    if result.failure is not None:
        OUT.print(f"      {escape(result.failure)}", soft_wrap=True)
