"""What `vaezoo bench` draws: times while and after they are measured, and two results beside each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from vaezoo.runtime.ort_session import EXECUTION
from vaezoo_cli.render.tables import ERR, OUT, show_shape, table

if TYPE_CHECKING:
    from vaezoo.bench.backends import IOMode
    from vaezoo.bench.compare import Change


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


def render_bench(result: Mapping[str, Any]) -> None:
    """Draws the times of all contestants, a table for each task and regime."""
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
    tables: dict[tuple[str, IOMode], dict[int, dict[str, Any]]] = {}
    for row in result["rows"]:
        tables.setdefault((row["task"], row["regime"]), {}).setdefault(row["batch"], {})[row["contestant"]] = row
    for (task, regime), batches in tables.items():
        OUT.print(f"\n[bold]{task}[/], {IO_MODES[regime]}; median ms (99th percentile)")
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
    extra = ("over_eager", "over_best") if compared else ()
    made = table("batch", *names, *(name.replace("_", " ") for name in extra), "images/s", "largest difference")
    for column in made.columns:
        column.justify = "right"
    for batch, rows in batches.items():
        cells = [show_time(rows[name]) if name in rows else "" for name in names]
        best = min((rows[name] for name in graphs if name in rows), key=lambda r: r["p50"])
        ratios = [f"{best[name]:.2f}x" if name in best else "" for name in extra]
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


def render_changes(changes: Iterable[Change], differences: Iterable[str]) -> None:
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
