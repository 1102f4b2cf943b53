"""The output of `vaezoo export` and `vaezoo verify`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.markup import escape

from vaezoo_cli.render.console import OUT, table

if TYPE_CHECKING:
    from vaezoo import ExportResult, VerifyResult
    from vaezoo.export.tolerance import Parity
    from vaezoo.runtime.manifest import TensorSignature


def render_export(result: ExportResult) -> None:
    """Prints the graphs, their largest differences from the model, and the next commands."""
    manifest = result.manifest
    config, parity = manifest["format"], manifest["parity"]
    for name, graph in manifest["graphs"].items():
        size = f"{manifest['files'][f'{name}.onnx']['bytes'] / 1e6:.2f} MB"
        inputs, outputs = (", ".join(map(show_tensor, graph[key])) for key in ("inputs", "outputs"))
        signature = f"{inputs} -> {outputs}"
        OUT.print(f"[cyan]{name}.onnx[/]  {size}  {escape(signature)}", soft_wrap=True)
    OUT.print(f"opset {config['opset']}, {config['dtype']}\n")
    batches = ", ".join(str(n) for n in parity["batches"])
    render_parity(result.parity, f"the graphs match the model in {parity['runtime']} on the CPU, batch sizes {batches}")
    folder = escape(str(result.path))
    OUT.print(f"\nwritten  {folder}/\nnext     vaezoo verify {folder}", soft_wrap=True)
    for command in ("sample", "bench") if "decoder" in manifest["graphs"] else ("bench",):
        OUT.print(f"         vaezoo {command} {folder}", soft_wrap=True)


def render_verification(result: VerifyResult) -> None:
    """Prints the largest differences of a verified export."""
    batches = ", ".join(map(str, result.batches))
    render_parity(
        result.parity,
        f"the graphs match the golden outputs in {result.runtime} on {result.provider}, batch sizes {batches}",
    )
    checked = "hashes, checkpoint, structure, outputs"
    if result.derived:
        files = ", ".join(f"{name}.onnx" for name in result.derived)
        OUT.print(f"\nderived  {escape(files)}: not the files that were exported", soft_wrap=True)
        checked = "structure, outputs"
    OUT.print(f"\n[green]ok[/]  {escape(str(result.path))}: {checked}", soft_wrap=True)


def render_parity(rows: Iterable[Parity], title: str) -> None:
    """Prints the largest difference of each output."""
    OUT.print(title)
    rows = list(rows)
    what = "rms difference" if any(row.rms is not None for row in rows) else "largest difference"
    lines = table("graph", "inputs", "output", what, "tolerance")
    for row in rows:
        lines.add_row(row.graph, row.inputs, escape(row.output), f"{row.difference:.1e}", f"{row.limit:.1e}")
    OUT.print(lines)


def show_tensor(signature: TensorSignature) -> str:
    """Formats an input or output of a graph as "x[batch, 1, 28, 28]"."""
    dtype = "" if signature["dtype"] == "float32" else f" {signature['dtype']}"
    return f"{signature['name']}[{', '.join(str(n) for n in signature['shape'])}]{dtype}"
