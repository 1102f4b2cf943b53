"""vaezoo bench [RUN|MODEL|PRETRAINED|EXPORT]"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from vaezoo.errors import InputError, VaezooError
from vaezoo_cli.options import open_run, source_argument

if TYPE_CHECKING:
    from vaezoo.bench.result import BenchResult
    from vaezoo.bench.workload import Workload
    from vaezoo.runtime.ort_session import Provider

MAX_BATCH = 10**6


@click.command()
@source_argument
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Device.")
@click.option(
    "--batch", "batches", default="1,8,64,256,1024", show_default=True, metavar="INTEGER,...", help="Batch sizes."
)
@click.option(
    "--image-size", type=click.IntRange(1), help="Height and width, for runs of free sizes.  [default: as the data]"
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Timed seconds per measurement, with at least 100 runs.",
)
@click.option("--threads", type=click.IntRange(1), help="Threads of PyTorch and ONNX Runtime.  [default: PyTorch's]")
@click.option("--tf32", is_flag=True, help="Allow TF32 on CUDA, which rounds factors to 10 bits.")
@click.option("--json", "file", type=click.Path(dir_okay=False), metavar="FILE", help="Write JSON; - means stdout.")
@click.option(
    "--compare",
    type=(click.Path(), click.Path()),
    metavar="A B",
    help="Show the rows of two such files that differ by more than their spread.",
)
def bench(
    source: str | None,
    device: str,
    batches: str,
    image_size: int | None,
    seconds: float,
    threads: int | None,
    tf32: bool,
    file: str | None,
    compare: tuple[str, str] | None,
) -> None:
    """Measure the speed of a model in ONNX Runtime and in PyTorch.

    RUN, MODEL, PRETRAINED and EXPORT are as in 'vaezoo sample'. A MODEL without a run is measured untrained. Of an
    EXPORT only the graphs are measured.

    All backends have the same threads and precision, and their runs are interleaved. Inputs and outputs are on the
    device, or numpy arrays.
    """
    if compare:
        if source is not None:
            raise VaezooError(f"--compare takes two files and no model, but got '{source}'", f"leave out '{source}'")
        show_changes(compare)
        return
    from vaezoo.runtime.ort_session import require_cuda, require_runtime

    sizes = parse_batches(batches)
    require_runtime()
    if device == "cuda":
        require_cuda()
    elif tf32:
        raise VaezooError("tf32 needs CUDA", "add --device cuda, or leave out --tf32")
    from vaezoo.bench.backends import BenchConfig, default_threads
    from vaezoo.bench.runner import bench as measure
    from vaezoo_cli.render.bench import BenchView, render_bench

    workload = load_workload(source, device, image_size)
    config = BenchConfig(cast("Provider", device), threads or default_threads(), tf32)
    with BenchView() as view:
        result = measure(workload, config, sizes, seconds=seconds, on_progress=view.show)
    if file != "-":
        render_bench(result)
    if file is not None:
        write_result(file, result)


def load_workload(source: str | None, device: str, image_size: int | None) -> Workload:
    """Loads what to measure: an export, which needs no torch, a run, or an untrained model if it has no run."""
    from vaezoo.runtime.export_files import is_export

    if source is not None and is_export(source):
        from vaezoo.bench.workload import from_export

        if image_size is not None:
            what = "--image-size needs the model, with whose outputs those of the graphs are compared"
            raise VaezooError(what, "give the run instead of the export")
        return from_export(Path(source))
    import torch

    from vaezoo import list_models
    from vaezoo.bench.models import from_model, from_run
    from vaezoo.training.run import newest_run

    if device == "cuda" and not torch.cuda.is_available():
        raise VaezooError("PyTorch finds no CUDA device", "see 'vaezoo doctor'")
    if source in [n for r in list_models() for n in (r.name, r.full_name)]:
        try:
            newest_run(source)
        except InputError:
            return from_model(source, image_size=image_size)
    return from_run(open_run(source, "best"), image_size)


def parse_batches(text: str) -> list[int]:
    """Parses batch sizes.

    Raises:
        VaezooError: If one is not an integer from 1 to a million.
    """
    items = [item.strip() for item in text.split(",")]
    invalid = [i for i in items if not (i.isascii() and i.isdigit() and len(i) < 8 and 1 <= int(i) <= MAX_BATCH)]
    if invalid:
        raise VaezooError(f"'{invalid[0]}' is not a batch size", "for example --batch 1,8,64")
    return [int(item) for item in items]


def write_result(file: str, result: BenchResult) -> None:
    """Writes a result as JSON. The file "-" means stdout."""
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
