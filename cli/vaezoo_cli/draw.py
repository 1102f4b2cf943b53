"""Everything that is drawn on the terminal. Data goes to stdout, progress and notes to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from vaezoo.providers import EXECUTION

if TYPE_CHECKING:
    from vaezoo import Exported, Report, Run, Trainer, Verified
    from vaezoo.bench.compare import Change
    from vaezoo.doctor import Finding
    from vaezoo.export.compare import Parity
    from vaezoo.testing import CheckResult

PIPE_WIDTH = 200  # columns, where nobody says how wide the page is: lines that a script can search


class Page(Console):
    """A console that takes a closed pipe (`vaezoo list | head`) for a reader who has seen enough."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        raise BrokenPipeError


class Margin(Console):
    """A console for progress: when nobody reads it any more, the work goes on in silence."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


OUT = Page(highlight=False, width=None if sys.stdout is not None and sys.stdout.isatty() else PIPE_WIDTH)
ERR = Margin(stderr=True, highlight=False)


def table(*columns: str) -> Table:
    """Returns an empty table in the one style."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def draw_models(models: Iterable[Mapping[str, str]]) -> None:
    """Draws the list of models; a broken one says why."""
    made = table("model", "from", "what it is", "reference")
    for row in models:
        source = f"{row['distribution']} {row['version']}"
        if "error" in row:
            made.add_row(escape(row["name"]), escape(source), f"[red]{escape(row['error'])}[/]", escape(row["hint"]))
        else:
            made.add_row(f"[cyan]{row['name']}[/]", escape(source), escape(row["summary"]), escape(row["reference"]))
    OUT.print(made)


def draw_datasets(datasets: Mapping[str, str]) -> None:
    """Draws the list of data sets."""
    made = table("data", "what it is")
    for name, description in datasets.items():
        made.add_row(f"[cyan]{name}[/]", escape(description))
    made.add_row("PATH", "an image folder, or arrays in a .npz or .npy file")
    OUT.print()
    OUT.print(made)


def draw_model(described: Mapping[str, object]) -> None:
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
    """Writes a picture's shape as 1x28x28."""
    sizes = [str(n) for n in shape]
    return "x".join(sizes) if len(sizes) > 1 else f"vector of {sizes[0]}"


class TrainingView:
    """Shows a training while it runs: a live bar on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[note]}"))
        self.bar = Progress(*columns, console=ERR, disable=not ERR.is_terminal, transient=True)
        self.task = self.bar.add_task("starting", note="")

    def __enter__(self) -> TrainingView:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def start(self, trainer: Trainer, path: Path) -> None:
        """Says what is about to be trained."""
        n = sum(p.numel() for p in trainer.vae.parameters())
        data = trainer.vae.data
        self.line(
            f"{escape(data.name)} {show_shape(data.shape)}: {len(trainer.train_part):,} to train, "
            f"{len(trainer.valid_part):,} to validate; {data.likelihood}; {n:,} parameters; "
            f"{trainer.steps:,} steps on {trainer.device}"
        )
        self.line(f"run folder {escape(str(path))}; nats per image, validation part")

    def report(self, report: Report) -> None:
        """Shows one report."""
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
        self.bar.console.print(text, soft_wrap=True)

    def finish(self, run: Run) -> None:
        """Says how it ended, what was written, and what to type next."""
        split, metrics = run.result["split"], run.result["metrics"]
        assert isinstance(metrics, dict)
        OUT.print(
            f"[bold]{split} -ELBO {-metrics['elbo']:.2f}[/] nats per image = reconstruction "
            f"{metrics['reconstruction']:.2f} + KL {metrics['kl']:.2f} "
            f"(z sampled; checkpoint of step {run.checkpoint.step})"
        )
        OUT.print(
            f"\nwritten  {escape(str(run.path))}/\nnext     vaezoo sample {escape(str(run.path))}", soft_wrap=True
        )
        for command in ("reconstruct", "export --onnx"):
            verb, _, flag = command.partition(" ")
            OUT.print(f"         vaezoo {verb} {escape(str(run.path))} {flag}".rstrip(), soft_wrap=True)


def draw_export(exported: Exported) -> None:
    """Draws what was exported, how close it is to the model, and what to type next."""
    graphs, form, parity = (exported.manifest[key] for key in ("graphs", "format", "parity"))
    for part, graph in graphs.items():
        size = f"{exported.manifest['files'][f'{part}.onnx']['bytes'] / 1e6:.2f} MB"
        signature = f"{show_tensor(graph['input'])} -> {', '.join(map(show_tensor, graph['outputs']))}"
        OUT.print(f"[cyan]{part}.onnx[/]  {size}  {escape(signature)}", soft_wrap=True)
    OUT.print(f"opset {form['opset']}, {form['dtype']}\n")
    batches = ", ".join(str(n) for n in parity["batches"])
    draw_parity(exported.parity, f"equal to the model in {parity['runtime']} on the CPU, batches {batches}")
    folder = escape(str(exported.path))
    OUT.print(f"\nwritten  {folder}/\nnext     vaezoo verify {folder}", soft_wrap=True)
    for verb in ("sample", "bench"):
        OUT.print(f"         vaezoo {verb} {folder}", soft_wrap=True)


def draw_verified(verified: Verified) -> None:
    """Draws what a check of an export found."""
    from vaezoo.export.compare import BATCHES

    batches = ", ".join(map(str, BATCHES))
    draw_parity(
        verified.parity, f"equal to the golden outputs in {verified.runtime} on {verified.provider}, batches {batches}"
    )
    OUT.print(f"\n[green]ok[/]  {escape(str(verified.path))}: hashes, pair, structure, outputs", soft_wrap=True)


def draw_parity(rows: Iterable[Parity], title: str) -> None:
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


def draw_findings(findings: Iterable[Finding]) -> None:
    """Draws what `vaezoo doctor` found."""
    made = table("what", "state", "what mends it")
    for finding in findings:
        colour = "yellow" if finding.mend else "default"
        made.add_row(finding.subject, f"[{colour}]{escape(finding.state)}[/]", escape(finding.mend or ""))
    OUT.print(made)


class BenchView:
    """Shows what is being measured: a line that changes on a terminal, nothing elsewhere."""

    def __init__(self) -> None:
        self.status = ERR.status("opening the model")

    def __enter__(self) -> BenchView:
        if ERR.is_terminal:
            self.status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.status.stop()

    def show(self, what: str) -> None:
        """Says what comes next."""
        self.status.update(what)


REGIME_TITLES = {"device": "inputs and outputs on the device", "host": "numpy in, numpy out"}


def draw_bench(result: Mapping[str, Any]) -> None:
    """Draws the times of all contestants, a table for each task and regime."""
    model, setting = result["model"], result["setting"]
    machine = result["environment"].get("gpu", {}).get("name") or result["environment"]["cpu"]
    tf32 = f", tf32 {'on' if setting['tf32'] else 'off'}" if setting["device"] == "cuda" else ""
    OUT.print(
        escape(
            f"{model['model']} {show_shape(model['shape'])}, {model['weights']}, {model['format']['dtype']}{tf32}; "
            f"{machine}, {setting['threads']} threads"
        ),
        soft_wrap=True,
    )
    tables: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for row in result["rows"]:
        tables.setdefault((row["task"], row["regime"]), {}).setdefault(row["batch"], {})[row["contestant"]] = row
    for (task, regime), batches in tables.items():
        OUT.print(f"\n[bold]{task}[/], {REGIME_TITLES[regime]}; median ms (99th percentile)")
        OUT.print(bench_table(batches))
    OUT.print(
        "\n! quartiles more than 10 % apart; ' bound by the cost of calls, \" by copies, otherwise by arithmetic",
        soft_wrap=True,
    )
    for text in first_runs(result["rows"]):
        OUT.print(text, soft_wrap=True)
    wanted = EXECUTION[setting["device"]]
    for text in sorted({stray_nodes(row, wanted) for row in result["rows"]} - {""}):
        OUT.print(f"[yellow]not on {wanted}[/]  {escape(text)}", soft_wrap=True)
    for name, reason in result["left_out"].items():
        OUT.print(f"[yellow]left out[/]  {escape(f'{name}: {reason}')}", soft_wrap=True)


def bench_table(batches: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> Table:
    """Returns the table of one task and regime."""
    names = list(dict.fromkeys(name for row in batches.values() for name in row))
    graphs = [name for name in names if name.startswith("ort")]
    compared = any("over_eager" in row[name] for row in batches.values() for name in graphs if name in row)
    extra = ("over eager", "over best") if compared else ()
    made = table("batch", *names, *extra, "images/s", "largest difference")
    for column in made.columns:
        column.justify = "right"
    for batch, rows in batches.items():
        cells = [show_time(rows[name]) if name in rows else "" for name in names]
        best = min((rows[name] for name in graphs if name in rows), key=lambda r: r["p50"])
        ratios = [f"{best['over_eager']:.2f}x", f"{best['over_best']:.2f}x"] if compared else []
        largest = max(rows[name]["max_abs"] for name in graphs if name in rows)
        made.add_row(str(batch), *cells, *ratios, f"{best['images_per_s']:,.0f}", f"{largest:.1e}")
    return made


def first_runs(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Says what each contestant took before it was warm: the longest of all its rows."""
    listed = list(rows)
    lines = []
    for name in dict.fromkeys(row["contestant"] for row in listed):
        own = [row for row in listed if row["contestant"] == name]
        opened = max((row.get("created", 0) for row in own), default=0)
        told = f", opening its sessions up to {opened:,.0f} ms" if opened else ""
        lines.append(f"first run of {name} up to {max(row['first'] for row in own):,.0f} ms{told}")
    return lines


def stray_nodes(row: Mapping[str, Any], wanted: str) -> str:
    """Says how many nodes of a row's graphs another provider runs than the one that was asked for; empty if none."""
    stray = {name: count for name, count in row.get("nodes", {}).items() if name != wanted}
    listed = ", ".join(f"{count} nodes on {name}" for name, count in stray.items())
    return f"{row['contestant']}, {row['task']}: {listed}" if stray else ""


def show_time(row: Mapping[str, Any]) -> str:
    """Writes a row's times, marked if they scatter and with what bounds them."""
    mark = {"calls": "'", "copies": '"'}.get(row["bound"], "")
    return f"{row['p50']:.3g}{mark}{'!' if row['spread'] > 0.1 else ''} ({row['p99']:.3g})"


def draw_changes(changes: Iterable[Change], differences: Iterable[str]) -> None:
    """Draws what changed between two results."""
    made = table("task", "batch", "regime", "contestant", "before ms", "after ms", "ratio", "")
    counts = dict.fromkeys(("faster", "slower", "same", "missing"), 0)
    for change in changes:
        counts[change.verdict] += 1
        if change.verdict not in ("faster", "slower"):
            continue
        assert change.before and change.after
        times = [f"{t:.3g}" for t in (change.before, change.after, change.after / change.before)]
        colour = "green" if change.verdict == "faster" else "red"
        made.add_row(*change.where, *times, f"[{colour}]{change.verdict}[/]")
    for line in differences:
        OUT.print(f"[yellow]differs[/]  {escape(line)}", soft_wrap=True)
    if made.row_count:
        OUT.print(made)
    OUT.print(
        f"{made.row_count} rows changed by more than their spread, {counts['same']} did not; "
        f"{counts['missing']} are in one file alone"
    )


def draw_check(result: CheckResult) -> None:
    """Draws one check of the conformance suite."""
    mark = "[green]ok[/]  " if result.failure is None else "[red]FAIL[/]"
    OUT.print(f"{mark}  {result.name}: {result.demand}", soft_wrap=True)
    if result.failure is not None:
        OUT.print(f"      {escape(result.failure)}", soft_wrap=True)
