"""Time four models' graphs in ONNX Runtime against PyTorch, and write the tables of benchmarks/README.md.

    python benchmarks/onnx_latency.py                    on the CPU
    python benchmarks/onnx_latency.py --device cuda      on a CUDA machine, CUDA graphs included
    python benchmarks/onnx_latency.py --tables           only the tables, from existing results

The results of each model are written to results/onnx-latency-MACHINE/MODEL.json, which `vaezoo bench --compare` reads.
The models are untrained, at their defaults, on 28x28 grey images: speed does not depend on the weights. With --shape or
--dtype the file is named after them too. `gpu.py` gives --limit; see latency_cells.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from latency_cells import compile_ahead, measure_cells
from tables import HERE, hardware, machine, put_tables, slug, table, versions
from vaezoo.bench.backends import IO_MODES, BenchConfig
from vaezoo.bench.models import DIGITS, from_model
from vaezoo.bench.result import BenchResult, IOMode, Task
from vaezoo.bench.runner import BATCHES, bench
from vaezoo.bench.workload import TASKS, Workload
from vaezoo.core.atomic import write_file
from vaezoo.core.json_io import json_bytes
from vaezoo.data.spec import DataSpec
from vaezoo.export.config import ExportConfig
from vaezoo.runtime.ort_session import require_cuda

MODELS = ("mlp-vae", "conv-vae", "beta-vae", "vae-gan")
MAX_SPREAD = 0.1  # rows with a larger spread are marked


def load_workload(model: str, args: argparse.Namespace) -> Workload:
    """Returns a model for images of the shape, with graphs of the dtype that the arguments give."""
    data = DataSpec(name="images", shape=tuple(args.shape), likelihood="bernoulli") if args.shape else DIGITS
    return from_model(model, data, ExportConfig(dtype=args.dtype))


def measure_model(model: str, args: argparse.Namespace, results: Path) -> None:
    """Measures a model and writes its file. With --limit, the file is written after each task and batch size."""
    config = BenchConfig(args.device, args.threads, args.tf32)

    def log(step: str) -> None:
        print(f"{model}: {step}", file=sys.stderr, flush=True)

    workload = load_workload(model, args)
    if args.compile_ahead:
        compile_ahead(workload, config, args.batch, args.task)
    elif args.limit is None:
        result = bench(workload, config, args.batch, tasks=args.task, seconds=args.seconds, on_progress=log)
        write_result(results, result)
    else:
        for result in measure_cells(workload, config, args.batch, args.task, args.seconds, args.limit, log):
            write_result(results, result)


def write_result(results: Path, result: BenchResult) -> None:
    """Writes the file of a result."""
    file = results / f"onnx-latency-{slug(machine(result))}" / f"{'-'.join(subject(result).split())}.json"
    write_file(file, json_bytes(result))
    print(file)


def subject(result: BenchResult) -> str:
    """Returns the model's name, with the shape of its images and its dtype where they are not the usual ones."""
    model = result["model"]
    shape = [] if model["shape"] == list(DIGITS.shape) else ["x".join(str(n) for n in model["shape"])]
    dtype = [] if model["format"]["dtype"] == "fp32" else [model["format"]["dtype"]]
    return " ".join([model["model"].split("/")[1], *shape, *dtype])


def tables(results: Path) -> list[str]:
    """Returns the tables of all machines."""
    lines: list[str] = []
    for folder in sorted(results.glob("onnx-latency-*")):
        found: list[BenchResult] = [json.loads(file.read_text()) for file in folder.glob("*.json")]
        if found:
            lines += machine_tables(folder, sorted(found, key=subject_order))
    return lines


def subject_order(result: BenchResult) -> tuple[int, str]:
    """Returns the sort key of a result: by model, then the usual shape and dtype first."""
    return MODELS.index(result["model"]["model"].split("/")[1]), subject(result)


def machine_tables(folder: Path, results: list[BenchResult]) -> list[str]:
    """Returns the tables of one machine: ratios for all models, milliseconds for conv-vae."""
    environment, setting = results[0]["environment"], results[0]["setting"]
    driver = environment.get("gpu", {}).get("driver_version")
    seconds = " or ".join(sorted({f"{result['setting']['seconds']:g}" for result in results}))
    lines = [
        f"### {machine(results[0])}",
        "",
        f"`results/{folder.name}/`. {hardware(environment)}, "
        f"{setting['threads']} threads on both sides, {seconds} s a figure"
        + (f", driver {driver}, TF32 {'on' if setting['tf32'] else 'off'}" if driver else "")
        + f"; {versions(environment)}.",
        "",
    ]
    batches = sorted({row["batch"] for result in results for row in result["rows"]})
    for io_mode, title in IO_MODES.items():
        rows = [
            [subject(result), task, *(ratio(result, task, batch, io_mode) for batch in batches)]
            for result in results
            for task in TASKS
            if any(row["task"] == task for row in result["rows"])
        ]
        lines += [f"ONNX Runtime's best over eager PyTorch / over the best of PyTorch, {title}:", ""]
        lines += [*table(["model", "task", *(f"batch {batch}" for batch in batches)], rows), ""]
    for result in results:
        if result["model"]["model"] == "vaezoo/conv-vae":
            lines += milliseconds(result)
    return lines


def ratio(result: BenchResult, task: Task, batch: int, io_mode: IOMode) -> str:
    """Returns the speed-ups of ONNX Runtime's fastest backend, marked with ! if the spread is over 10 %."""
    where = (task, batch, io_mode)
    rows = [r for r in result["rows"] if (r["task"], r["batch"], r["io_mode"]) == where and "over_eager" in r]
    if not rows:
        return ""
    row = min(rows, key=lambda r: r["p50"])
    return f"{row['over_eager']:.2f} / {row['over_best']:.2f}{' !' if row['spread'] > MAX_SPREAD else ''}"


def milliseconds(result: BenchResult) -> list[str]:
    """Returns a table of a model's medians on the device."""
    rows = [row for row in result["rows"] if row["io_mode"] == "device"]
    names = list(dict.fromkeys(row["backend"] for row in rows))
    cells = []
    for task, batch in dict.fromkeys((row["task"], row["batch"]) for row in rows):
        backends = {row["backend"]: row for row in rows if (row["task"], row["batch"]) == (task, batch)}
        times = [
            f"{backends[name]['p50']:.3g} ({backends[name]['p99']:.3g})" if name in backends else "" for name in names
        ]
        max_abs = max(row["max_abs"] for name, row in backends.items() if name.startswith("ort"))
        cells.append([task, str(batch), *times, f"{max_abs:.1e}"])
    title = f"{subject(result)}, milliseconds on the device, median (99th percentile):"
    return [title, "", *table(["task", "batch", *names, "largest difference"], cells), ""]


def main() -> None:
    """Reads the arguments, measures, and writes results and tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--seconds", type=float, default=0.15)
    parser.add_argument("--batch", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--task", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--shape", type=int, nargs=3, metavar=("C", "H", "W"), help="images; default: 1 28 28")
    parser.add_argument("--dtype", choices=["fp32", "fp16"], default="fp32", help="of the graphs and of PyTorch")
    parser.add_argument("--limit", type=float, help="write after each figure, and begin none that would end later")
    parser.add_argument("--compile-ahead", action="store_true", help="only fill PyTorch's cache of compiled kernels")
    parser.add_argument("--out", type=Path, help="write the results there and do not change README.md")
    parser.add_argument("--tables", action="store_true", help="write the tables without measuring")
    args = parser.parse_args()
    results = args.out or HERE / "results"
    if args.device == "cuda":
        require_cuda()
    for model in [] if args.tables else args.model:
        measure_model(model, args, results)
    if not args.out:
        put_tables("onnx-latency", "onnx_latency.py", tables(results))


if __name__ == "__main__":
    main()
