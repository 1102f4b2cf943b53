"""vaezoo bench [RUN|MODEL|EXPORT]"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from vaezoo.errors import InputError, VaezooError
from vaezoo_cli.options import open_run, source_argument

if TYPE_CHECKING:
    from vaezoo.bench.workload import Workload
    from vaezoo.runtime.ort_session import Provider


@click.command()
@source_argument
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="What runs it.")
@click.option("--batch", "batches", default="1,8,64,256,1024", show_default=True, help="Batch sizes.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Timed seconds a figure, and at least 100 runs.",
)
@click.option("--threads", type=click.IntRange(1), help="For PyTorch and ONNX Runtime alike  [default: PyTorch's]")
@click.option("--tf32", is_flag=True, help="Let CUDA round factors to 10 bits, on both sides.")
@click.option(
    "--json", "file", type=click.Path(dir_okay=False), metavar="FILE", help="Write all figures there, - for stdout."
)
@click.option(
    "--compare",
    type=(click.Path(), click.Path()),
    metavar="A B",
    help="Say which rows of two such files differ by more than their spread.",
)
def bench(
    source: str | None,
    device: str,
    batches: str,
    seconds: float,
    threads: int | None,
    tf32: bool,
    file: str | None,
    compare: tuple[str, str] | None,
) -> None:
    """Time a model's graphs in ONNX Runtime against the model in PyTorch.

    RUN is a run folder; a model's name means its newest run, or the untrained model where there is none;
    nothing means the newest run of all. PRETRAINED is a name that 'vaezoo pretrained' lists. EXPORT is an exported
    folder, of which only the graphs are timed.

    All contestants have the same threads, precision and clock, and take turns. "device": inputs and outputs
    stay where the model is; "host": numpy in, numpy out.
    """
    if compare:
        if source is not None:
            raise VaezooError(f"--compare takes two files and measures nothing; '{source}' is a third", "leave it out")
        show_changes(compare)
        return
    from vaezoo.runtime.ort_session import require_cuda, require_runtime

    sizes = parse_batches(batches)
    require_runtime()
    if device == "cuda":
        require_cuda()
    elif tf32:
        raise VaezooError("tf32 is of CUDA; the CPU has no such products", "add --device cuda, or leave out --tf32")
    import torch

    from vaezoo.bench.backends import BenchConfig
    from vaezoo.bench.runner import bench as measure
    from vaezoo_cli.render.bench import BenchView, render_bench

    if device == "cuda" and not torch.cuda.is_available():
        raise VaezooError("PyTorch finds no CUDA device", "see 'vaezoo doctor'")

    subject = find_subject(source)
    setting = BenchConfig(cast("Provider", device), threads or torch.get_num_threads(), tf32)
    with BenchView() as view:
        result = measure(subject, setting, sizes, seconds=seconds, on_row=view.show)
    if file != "-":
        render_bench(result)
    if file is not None:
        write_result(file, result)


def find_subject(source: str | None) -> Workload:
    """Finds what is to be timed: an export, a run, or a model that has no run yet."""
    from vaezoo import list_models
    from vaezoo.bench.workload import from_export, from_model, from_run
    from vaezoo.runtime.manifest import is_export
    from vaezoo.training.run import newest_run

    if source is not None and is_export(source):
        return from_export(Path(source))
    if source in [n for r in list_models() for n in (r.name, r.full_name)]:
        try:
            newest_run(source)
        except InputError:
            return from_model(source)
    return from_run(open_run(source, "best"))


def parse_batches(text: str) -> list[int]:
    """Reads batch sizes.

    Raises:
        VaezooError: If one is no whole number from 1 to a million.
    """
    words = [word.strip() for word in text.split(",")]
    wrong = [w for w in words if not (w.isascii() and w.isdigit() and len(w) < 8 and 1 <= int(w) <= 10**6)]
    if wrong:
        raise VaezooError(f"'{wrong[0]}' is no batch size", "write --batch 1,8,64")
    return [int(w) for w in words]


def write_result(file: str, result: dict[str, Any]) -> None:
    """Writes a result as JSON, on stdout if the file's name is -."""
    from vaezoo.core.atomic import write_file
    from vaezoo.core.json_io import json_bytes

    if file == "-":
        click.echo(json_bytes(result), nl=False)
        return
    write_file(Path(file), json_bytes(result))
    click.echo(f"\nwritten  {file}", err=True)


def show_changes(files: tuple[str, str]) -> None:
    """Compares two results."""
    from vaezoo.bench.compare import compare_results, differences, read_result
    from vaezoo_cli.render.bench import render_changes

    before, after = (read_result(Path(file)) for file in files)
    render_changes(compare_results(before, after), differences(before, after))
