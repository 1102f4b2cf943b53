"""Measure encoder and decoder of image autoencoders at large sizes: PyTorch and ONNX Runtime on the CPU.

    python benchmarks/large_images.py --taef2 FOLDER    imported TAEF2 and autoencoder-kl
    python benchmarks/large_images.py --tables          only the table, from existing results

All backends have the same threads. They take turns and must compute what the model computes. Peak memory is measured in
processes of their own. Without --taef2, a model of diffusers' class that is made here takes its place. With --out, the
results go to another folder and README.md does not change. --tiny tries the script.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

import vaezoo
from large_images_memory import peak_memory
from tables import HERE, hardware, machine, put_tables, slug, table, versions
from vaezoo.bench.backends import BenchConfig, default_threads
from vaezoo.bench.models import from_run
from vaezoo.bench.result import BenchResult, Task
from vaezoo.bench.runner import bench
from vaezoo.core.atomic import write_file
from vaezoo.core.json_io import json_bytes
from vaezoo.errors import ParityError
from vaezoo.training.run import Run, load

RESULTS = HERE / "results"
PREFIX = "large-images"
TASKS: tuple[Task, ...] = ("encoder", "decoder")
NATIVE, ORT = ("eager", "channels-last", "compile"), "ort-cpu"
HEAD = ("task", "pixels", "batch", *NATIVE, ORT, "over eager", "over best")
SMALL: dict[str, dict[str, object]] = {
    "autoencoder-kl": {"channels": (8, 8), "norm_groups": 4},
    "tiny-autoencoder": {"channels": 4, "blocks": (1, 1)},
}


def make_runs(folder: Path, taef2: Path | None, tiny: bool) -> dict[str, Run]:
    """Returns the runs to measure by their names: an imported one, and an autoencoder-kl at its defaults.

    The weights of a model that is made here have been trained for one step. Speed does not depend on them.
    """
    imported = taef2 or export_made(folder)
    vaezoo.import_folder(imported, folder / "imported", image_size=64)
    options = SMALL["autoencoder-kl"] if tiny else {}
    name = "tiny-autoencoder" if taef2 is None else taef2.name
    return {name: load(folder / "imported"), "autoencoder-kl": train_a_step("autoencoder-kl", options, folder)}


def export_made(folder: Path) -> Path:
    """Returns a folder of diffusers with a small model, which is not trained."""
    run = train_a_step("tiny-autoencoder", SMALL["tiny-autoencoder"], folder)
    vaezoo.export_diffusers(run, folder / "diffusers")
    return folder / "diffusers"


def train_a_step(model: str, options: dict[str, object], folder: Path) -> Run:
    """Returns a run on random images of 64x64 pixels in colour."""
    images = np.random.default_rng(0).random((20, 3, 64, 64), np.float32)
    data = vaezoo.from_arrays(images, likelihood="gaussian-identity")
    config = vaezoo.TrainConfig(steps=1, batch_size=2)
    return vaezoo.train(model, data, options=options, config=config, out=folder / model)


def measure(name: str, run: Run, size: int, args: argparse.Namespace) -> tuple[BenchResult, list[dict[str, Any]]]:
    """Measures a model at a size. Returns the result of `vaezoo bench`, and its rows with memory."""
    workload = from_run(run, size)
    config = BenchConfig("cpu", args.threads or default_threads())

    def show(step: str) -> None:
        print(f"{name}, {size} pixels: {step}", file=sys.stderr)

    result = bench(
        workload, config, args.batch, tasks=TASKS, seconds=args.seconds, io_modes=["device"], on_progress=show
    )
    rows: list[dict[str, Any]] = []
    for row in result["rows"]:
        show(f"memory of {row['backend']}, {row['task']}, batch {row['batch']}")
        memory = peak_memory(run.path, workload, row["task"], row["batch"], row["backend"], config.threads)
        rows.append({"model": name, "size": size, **cast("dict[str, Any]", row), "memory": memory})
    return result, rows


def tables(results: Path = RESULTS) -> list[str]:
    """Returns the lines for README.md, with a table for each machine and model."""
    lines: list[str] = []
    for file in sorted(results.glob(f"{PREFIX}-*.json")):
        result = json.loads(file.read_text("utf-8"))
        setting, about = result["setting"], result["environment"]
        protocol = f"{setting['threads']} threads, {setting['seconds']:g} s for each figure"
        lines += [f"### Large images on {machine(result)}", ""]
        lines += [f"`results/{file.name}`. {hardware(about)}; {versions(about)}. {protocol}.", ""]
        for name, parameters in result["parameters"].items():
            rows = [row for row in result["rows"] if row["model"] == name]
            lines += [f"`{name}`, {parameters:,} parameters:", "", *table(HEAD, table_rows(rows)), ""]
    return lines


def table_rows(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Returns the rows of a model's table: one for each task, size and batch size, with a cell for each backend."""
    combinations = dict.fromkeys((row["task"], row["size"], row["batch"]) for row in rows)
    lines = []
    for task, size, batch in combinations:
        own = {r["backend"]: r for r in rows if (r["task"], r["size"], r["batch"]) == (task, size, batch)}
        over = [f"{own[ORT][key]:.2f}" if key in own.get(ORT, {}) else "" for key in ("over_eager", "over_best")]
        cells = [cell(own[name]) if name in own else "" for name in (*NATIVE, ORT)]
        lines.append([task, str(size), str(batch), *cells, *over])
    return lines


def cell(row: dict[str, Any]) -> str:
    """Returns the median time, the peak memory and the largest difference from the model."""
    memory = "" if row["memory"] is None else f"{row['memory']:,.0f} MB, "
    return f"{row['p50']:.4g} ms, {memory}{row['max_abs']:.0e}"


def main() -> None:
    """Parses the arguments, measures, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--taef2", type=Path, help="folder of TAEF2's encoder.safetensors and decoder.safetensors")
    parser.add_argument("--size", type=int, nargs="+", default=[256, 512], help="height and width")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--seconds", type=float, default=5.0, help="timed seconds of each backend")
    parser.add_argument("--threads", type=int, help="default: those of PyTorch")
    parser.add_argument("--tiny", action="store_true", help="a small autoencoder-kl")
    parser.add_argument("--out", type=Path, help="write the results there and do not change README.md")
    parser.add_argument("--tables", action="store_true", help="only write the table")
    args = parser.parse_args()
    if not args.tables:
        with tempfile.TemporaryDirectory() as folder:
            runs = make_runs(Path(folder), args.taef2, args.tiny)
            measured: dict[tuple[str, int], tuple[BenchResult, list[dict[str, Any]]]] = {}
            for name, size in itertools.product(runs, args.size):
                try:
                    measured[name, size] = measure(name, runs[name], size, args)
                except ParityError as e:  # a backend computes something else: the other sizes are measured all the same
                    print(f"{name}, {size} pixels: left out, because {e.message}", file=sys.stderr)
                    continue
                write(args.out or RESULTS, measured)
    if not args.out:
        put_tables(PREFIX, "large_images.py", tables())


def write(results: Path, measured: dict[tuple[str, int], tuple[BenchResult, list[dict[str, Any]]]]) -> None:
    """Writes the file of this machine."""
    first = next(iter(measured.values()))[0]
    about = {"schema": 1, "environment": first["environment"], "setting": first["setting"]}
    parameters = {name: result["model"]["parameters"] for (name, _), (result, _) in measured.items()}
    skipped = {f"{name}, {size}": result["skipped"] for (name, size), (result, _) in measured.items()}
    rows = [row for _, own in measured.values() for row in own]
    file = results / f"{PREFIX}-{slug(machine(about))}.json"
    write_file(file, json_bytes({**about, "parameters": parameters, "rows": rows, "skipped": skipped}))
    print(file)


if __name__ == "__main__":
    main()
