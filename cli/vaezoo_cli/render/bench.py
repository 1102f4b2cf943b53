"""The output of `vaezoo bench`: progress, the times of one result, and the changes between two results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from rich.markup import escape
from rich.table import Table

from vaezoo.runtime.ort_session import EXECUTION
from vaezoo_cli.render.console import ERR, OUT, show_shape, table

if TYPE_CHECKING:
    from vaezoo.bench.compare import Change
    from vaezoo.bench.result import BenchResult, BenchRow, IOMode

MAX_SPREAD = 0.1  # distance between the quartiles as a share of the median; rows above it are marked


class BenchView:
    """Shows the current measurement on a terminal, and nothing elsewhere."""

    def __init__(self) -> None:
        self.status = ERR.status("opening the model")

    def __enter__(self) -> BenchView:
        if ERR.is_terminal:
            self.status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.status.stop()

    def show(self, step: str) -> None:
        """Shows the next step."""
        self.status.update(step)


def render_bench(result: BenchResult) -> None:
    """Prints the times of all backends, in one table for each task and IO mode."""
    from vaezoo.bench.backends import IO_MODES

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
    tables: dict[tuple[str, IOMode], dict[int, dict[str, BenchRow]]] = {}
    for row in result["rows"]:
        tables.setdefault((row["task"], row["io_mode"]), {}).setdefault(row["batch"], {})[row["backend"]] = row
    for (task, io_mode), batches in tables.items():
        OUT.print(f"\n[bold]{task}[/], {IO_MODES[io_mode]}: median ms (99th percentile)")
        OUT.print(bench_table(batches))
    OUT.print(
        f"\n! quartiles more than {MAX_SPREAD:.0%} apart   ' limited by the cost of calls   \" limited by copies",
        soft_wrap=True,
    )
    for line in first_runs(result["rows"]):
        OUT.print(line, soft_wrap=True)
    provider = EXECUTION[setting["device"]]
    for line in sorted({stray_nodes(row, provider) for row in result["rows"]} - {""}):
        OUT.print(f"[yellow]not on {provider}[/]  {escape(line)}", soft_wrap=True)
    for name, reason in result["skipped"].items():
        OUT.print(f"[yellow]skipped[/]  {escape(f'{name}: {reason}')}", soft_wrap=True)


def bench_table(batches: Mapping[int, Mapping[str, BenchRow]]) -> Table:
    """Returns the table of one task and IO mode.

    Args:
        batches: Batch size -> backend -> row.
    """
    names = list(dict.fromkeys(name for row in batches.values() for name in row))
    graphs = [name for name in names if name.startswith("ort")]
    compared = any("over_eager" in row[name] for row in batches.values() for name in graphs if name in row)
    speedups: tuple[Literal["over_eager", "over_best"], ...] = ("over_eager", "over_best") if compared else ()
    headings = (name.replace("_", " ") for name in speedups)
    result = table("batch", *names, *headings, "images/s", "largest difference")
    for column in result.columns:
        column.justify = "right"
    for batch, rows in batches.items():
        cells = [show_time(rows[name]) if name in rows else "" for name in names]
        best = min((rows[name] for name in graphs if name in rows), key=lambda r: r["p50"])
        ratios = [f"{best[name]:.2f}x" if name in best else "" for name in speedups]
        largest = max(rows[name]["max_abs"] for name in graphs if name in rows)
        result.add_row(str(batch), *cells, *ratios, f"{best['images_per_s']:,.0f}", f"{largest:.1e}")
    return result


def first_runs(rows: Iterable[BenchRow]) -> list[str]:
    """Returns a line for each backend with the longest first run of all its rows."""
    all_rows = list(rows)
    lines = []
    for name in dict.fromkeys(row["backend"] for row in all_rows):
        own = [row for row in all_rows if row["backend"] == name]
        opening = max((row.get("created", 0) for row in own), default=0)
        sessions = f", opening its sessions up to {opening:,.0f} ms" if opening else ""
        lines.append(f"first run of {name}: up to {max(row['first'] for row in own):,.0f} ms{sessions}")
    return lines


def stray_nodes(row: BenchRow, provider: str) -> str:
    """Describes the nodes of a row's graphs that run on another provider. Empty if there are none."""
    stray = {name: count for name, count in row.get("nodes", {}).items() if name != provider}
    counts = ", ".join(f"{count} nodes on {name}" for name, count in stray.items())
    return f"{row['backend']}, {row['task']}: {counts}" if stray else ""


def show_time(row: BenchRow) -> str:
    """Formats a row's times, with a mark for what limits them and one for a large spread."""
    mark = {"calls": "'", "copies": '"'}.get(row["bound"], "")
    return f"{row['p50']:.3g}{mark}{'!' if row['spread'] > MAX_SPREAD else ''} ({row['p99']:.3g})"


def render_changes(changes: Iterable[Change], differences: Iterable[str]) -> None:
    """Prints the rows that changed between two results, and the other differences."""
    rows = table("task", "batch", "IO mode", "backend", "before ms", "after ms", "ratio", "")
    counts = dict.fromkeys(("faster", "slower", "same", "missing"), 0)
    for change in changes:
        counts[change.verdict] += 1
        if change.verdict not in ("faster", "slower"):
            continue
        assert change.before and change.after
        times = [f"{t:.3g}" for t in (change.before, change.after, change.after / change.before)]
        colour = "green" if change.verdict == "faster" else "red"
        rows.add_row(*change.where, *times, f"[{colour}]{change.verdict}[/]")
    for line in differences:
        OUT.print(f"[yellow]differs[/]  {escape(line)}", soft_wrap=True)
    if rows.row_count:
        OUT.print(rows)
    OUT.print(
        f"{rows.row_count} rows changed by more than their spread, {counts['same']} did not; "
        f"{counts['missing']} are in only one file"
    )
