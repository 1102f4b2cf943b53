"""The rows of gpu.py that no other script measures. Each prints its result as a JSON object in the last line.

python benchmarks/gpu_tasks.py facts DEVICE                  versions, devices, providers
python benchmarks/gpu_tasks.py verify DEVICE --model NAME    an export on DEVICE against the model on the CPU
python benchmarks/gpu_tasks.py profile DEVICE --out FOLDER   where ONNX Runtime is slower than PyTorch, and why
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vaezoo
from vaezoo.bench.compare import read_result
from vaezoo.bench.models import from_model
from vaezoo.bench.result import BenchResult, BenchRow, Task
from vaezoo.bench.workload import Workload
from vaezoo.core.atomic import write_file
from vaezoo.core.environment import environment, gpu_environment
from vaezoo.core.json_io import json_bytes
from vaezoo.data.spec import DataSpec
from vaezoo.doctor import examine
from vaezoo.errors import VaezooError, format_error
from vaezoo.export.config import DType, ExportConfig
from vaezoo.export.verify import verify_onnx
from vaezoo.runtime.manifest import GraphName
from vaezoo.runtime.ort_session import EXECUTION, PROVIDER_OPTIONS, Provider

PACKAGES = ("vaezoo", "torch", "torchvision", "triton", "numpy", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu")
BASELINES = ("pythae", "jax", "jaxlib", "jax-cuda13-plugin", "optax")
DTYPES: tuple[DType, ...] = ("fp32", "fp16")
SLOWER = 0.9  # below this speed-up over the best of PyTorch, ONNX Runtime is profiled
PROFILED = 3  # cells of each result, the slowest first
PROFILED_RUNS = 20
TOP = 5  # nodes and kernels that are kept
VERIFY_SECONDS = 120


def facts(device: Provider) -> dict[str, Any]:
    """Returns versions, devices and what `vaezoo doctor` finds."""
    about = dict(environment(PACKAGES + BASELINES))
    if device == "cuda":
        about["gpu"] = gpu_environment()
    return {**about, "doctor": {finding.subject: finding.state for finding in examine()}}


def verify(model: str, device: Provider) -> dict[str, Any]:
    """Trains a model for one step, exports it in each dtype and verifies the exports. Returns the differences.

    The golden outputs are the model's on the CPU, so on CUDA these are the differences between two devices.
    """
    result: dict[str, Any] = {"model": model, "provider": device}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = vaezoo.train(model, "digits", config=vaezoo.TrainConfig(steps=1, device="cpu"), out=folder / "run")
        for dtype in DTYPES:
            try:
                path = vaezoo.export_onnx(run, folder / dtype, dtype=dtype).path
                rows = verify_onnx(path, device, seconds=VERIFY_SECONDS).parity
            except VaezooError as error:
                result[dtype] = {"error": format_error(error)}
            else:
                result[dtype] = {f"{row.graph} {row.output}, {row.inputs}": row.max_abs for row in rows}
    return result


def slow_cells(result: BenchResult) -> list[BenchRow]:
    """Returns ONNX Runtime's fastest row of each cell on the device in which it is clearly slower than PyTorch."""
    fastest: dict[tuple[Task, int], BenchRow] = {}
    for row in result["rows"]:
        if row["io_mode"] == "device" and "over_best" in row:
            cell = row["task"], row["batch"]
            fastest[cell] = min(fastest.get(cell, row), row, key=lambda r: r["p50"])
    slow = [row for row in fastest.values() if row["over_best"] < SLOWER]
    return sorted(slow, key=lambda row: row["over_best"])[:PROFILED]


def profile(device: Provider, out: Path, limit: float) -> dict[str, Any]:
    """Profiles the slowest cells of all latency results in a folder. Writes the profiles after each cell."""
    start, profiles = time.monotonic(), list[dict[str, Any]]()
    for file in sorted(out.glob("onnx-latency-*/*.json")):
        result = read_result(file)
        cells = slow_cells(result)
        workload = load(result) if cells else None
        for row in cells:
            if workload and row["task"] != "round trip" and time.monotonic() - start < limit:
                profiles.append({"file": file.name, **profile_or_error(workload, row, device)})
                write_file(out / "onnx-profiles.json", json_bytes({"schema": 1, "profiles": profiles}))
    return {"profiles": profiles}


def load(result: BenchResult) -> Workload:
    """Returns the workload of a latency result."""
    model, dtype = result["model"], result["model"]["format"]["dtype"]
    data = DataSpec(name="images", shape=tuple(model["shape"]))
    return from_model(model["model"], data, ExportConfig(dtype="fp16" if dtype == "fp16" else "fp32"))


def profile_or_error(workload: Workload, row: BenchRow, device: Provider) -> dict[str, Any]:
    """Returns the profile of a cell, or why there is none."""
    try:
        return profile_cell(workload, row, device)
    except Exception as error:  # ONNX Runtime and the profiler may raise anything, and the next cell may still run
        return {"task": row["task"], "batch": row["batch"], "error": format_error(error)}


def profile_cell(workload: Workload, row: BenchRow, device: Provider) -> dict[str, Any]:
    """Returns the nodes and, on CUDA, the kernels of ONNX Runtime that take the longest, in microseconds per run.

    On CUDA the time of a node is the time of its launch on the CPU. That of a kernel is its time on the GPU.
    """
    import onnxruntime as ort

    graph: GraphName = "encoder" if row["task"] == "encoder" else "decoder"
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.enable_profiling, options.profile_file_prefix = True, f"{folder}/ort"
        providers = [(EXECUTION[device], dict(PROVIDER_OPTIONS[device]))]
        session = ort.InferenceSession(workload.files[graph], options, providers=providers)
        inputs = dict(workload.case(row["task"], row["batch"]).inputs)
        session.run(None, inputs)
        kernels = cuda_kernels(session, inputs) if device == "cuda" else {}
        file = Path(session.end_profiling())
        nodes = node_times(file)
    cell = {"task": row["task"], "batch": row["batch"], "over_best": row["over_best"], "best": row["best"]}
    return {**cell, "nodes": nodes, "kernels": kernels}


def cuda_kernels(session: Any, inputs: dict[str, Any]) -> dict[str, float]:
    """Runs a session some times and returns the GPU's kernels and copies that take the longest."""
    from torch.profiler import ProfilerActivity

    torch.zeros(1, device="cuda")  # the profiler needs a PyTorch that has initialised CUDA
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(PROFILED_RUNS):
            session.run(None, inputs)
    times: Counter[str] = Counter()
    for event in profiler.events() or ():
        times[event.name] += event.time_range.elapsed_us()
    return {name: round(time / PROFILED_RUNS, 2) for name, time in times.most_common(TOP)}


def node_times(file: Path) -> dict[str, float]:
    """Returns the longest nodes of ONNX Runtime's profile, without the first run, which initialises them."""
    times: dict[str, list[float]] = {}
    for event in json.loads(file.read_text("utf-8")):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = f"{event['args']['op_name']} {event['name'].removesuffix('_kernel_time')}"
            times.setdefault(name, []).append(float(event["dur"]))
    means = {name: float(np.mean(values[1:] or values)) for name, values in times.items()}
    return {name: round(value, 1) for name, value in Counter(means).most_common(TOP)}


def main() -> None:
    """Runs one task and prints its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["facts", "verify", "profile"])
    parser.add_argument("device", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="mlp-vae")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds after which no cell is profiled")
    args = parser.parse_args()
    if args.task == "facts":
        result = facts(args.device)
    elif args.task == "verify":
        result = verify(args.model, args.device)
    else:
        result = profile(args.device, args.out, args.limit)
    sys.stdout.write(f"{json.dumps(result)}\n")


if __name__ == "__main__":
    main()
