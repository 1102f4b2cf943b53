"""Times the four models' graphs in ONNX Runtime against PyTorch, and writes the tables of benchmarks/README.md.

    python benchmarks/onnx_latency.py                    the CPU
    python benchmarks/onnx_latency.py --device cuda      a CUDA machine: the same sweep, CUDA graphs included
    python benchmarks/onnx_latency.py --tables           only the tables, from the results at hand

Each model's figures go to results/onnx-latency-MACHINE/MODEL.json, which `vaezoo bench --compare` reads. The models are
untrained, at their defaults, on 28x28 grey images: weights do not matter for speed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tables import HERE, hardware, machine, put_tables, slug, table, versions
from vaezoo.bench.backends import IO_MODES, BenchConfig
from vaezoo.bench.runner import BATCHES, bench
from vaezoo.bench.workload import from_model
from vaezoo.core.atomic import write_file
from vaezoo.core.json_io import json_bytes
from vaezoo.runtime.ort_session import require_cuda

MODELS = ("mlp-vae", "conv-vae", "beta-vae", "vae-gan")


def sweep(results: Path, setting: BenchConfig, models: list[str], batches: list[int], seconds: float) -> None:
    """Measures the models, one file each."""
    for model in models:
        result = bench(
            from_model(model),
            setting,
            batches,
            seconds=seconds,
            on_row=lambda what, model=model: print(f"{model}: {what}", file=sys.stderr, flush=True),
        )
        file = results / f"onnx-latency-{slug(machine(result))}" / f"{model}.json"
        write_file(file, json_bytes(result))
        print(file)


def tables(results: Path) -> list[str]:
    """Returns the tables of all machines."""
    lines: list[str] = []
    for folder in sorted(results.glob("onnx-latency-*")):
        found = [json.loads((folder / f"{m}.json").read_text()) for m in MODELS if (folder / f"{m}.json").exists()]
        if found:
            lines += machine_tables(folder, found)
    return lines


def machine_tables(folder: Path, found: list[Mapping[str, Any]]) -> list[str]:
    """Returns the tables of one machine: ratios for all models, milliseconds for conv-vae."""
    environment, setting = found[0]["environment"], found[0]["setting"]
    driver = environment.get("gpu", {}).get("driver_version")
    seconds = " or ".join(sorted({f"{result['setting']['seconds']:g}" for result in found}))
    lines = [
        f"### {machine(found[0])}",
        "",
        f"`results/{folder.name}/`. {hardware(environment)}, "
        f"{setting['threads']} threads on both sides, {seconds} s a figure"
        + (f", driver {driver}, TF32 {'on' if setting['tf32'] else 'off'}" if driver else "")
        + f"; {versions(environment)}.",
        "",
    ]
    for regime, title in IO_MODES.items():
        batches = sorted({r["batch"] for result in found for r in result["rows"]})
        rows = [
            [result["model"]["model"].split("/")[1], task, *(ratio(result, task, batch, regime) for batch in batches)]
            for result in found
            for task in ("encoder", "decoder", "round trip")
        ]
        lines += [f"ONNX Runtime's best over eager PyTorch / over the best of PyTorch, {title}:", ""]
        lines += [*table(["model", "task", *(f"batch {b}" for b in batches)], rows), ""]
    for result in found:
        if result["model"]["model"] == "vaezoo/conv-vae":
            lines += milliseconds(result)
    return lines


def ratio(result: Mapping[str, Any], task: str, batch: int, regime: str) -> str:
    """Writes the speed-ups of ONNX Runtime's faster contestant, with ! where quartiles are over 10 % apart."""
    where = (task, batch, regime)
    rows = [r for r in result["rows"] if (r["task"], r["batch"], r["regime"]) == where and "over_eager" in r]
    if not rows:
        return ""
    row = min(rows, key=lambda r: r["p50"])
    return f"{row['over_eager']:.2f} / {row['over_best']:.2f}{' !' if row['spread'] > 0.1 else ''}"


def milliseconds(result: Mapping[str, Any]) -> list[str]:
    """Returns a table of conv-vae's medians on the device."""
    rows = [r for r in result["rows"] if r["regime"] == "device"]
    names = list(dict.fromkeys(r["contestant"] for r in rows))
    cells = []
    for task, batch in dict.fromkeys((r["task"], r["batch"]) for r in rows):
        here = {r["contestant"]: r for r in rows if (r["task"], r["batch"]) == (task, batch)}
        times = [f"{here[n]['p50']:.3g} ({here[n]['p99']:.3g})" if n in here else "" for n in names]
        largest = max(r["max_abs"] for n, r in here.items() if n.startswith("ort"))
        cells.append([task, str(batch), *times, f"{largest:.1e}"])
    title = "conv-vae, milliseconds on the device, median (99th percentile):"
    return [title, "", *table(["task", "batch", *names, "largest difference"], cells), ""]


def main() -> None:
    """Reads the arguments, measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--seconds", type=float, default=0.15)
    parser.add_argument("--batch", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--model", nargs="+", default=list(MODELS))
    parser.add_argument("--out", type=Path, help="write results there and leave README.md as it is")
    parser.add_argument("--tables", action="store_true", help="measure nothing")
    chosen = parser.parse_args()
    results = chosen.out or HERE / "results"
    if chosen.device == "cuda":
        require_cuda()
    if not chosen.tables:
        setting = BenchConfig(chosen.device, chosen.threads, chosen.tf32)
        sweep(results, setting, chosen.model, chosen.batch, chosen.seconds)
    if not chosen.out:
        put_tables("onnx-latency", "onnx_latency.py", tables(results))


if __name__ == "__main__":
    main()
