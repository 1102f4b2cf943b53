"""Peak memory of one backend, in a process of its own. large_images.py calls it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vaezoo.bench.result import Task
from vaezoo.bench.workload import Workload

ARRAYS, GRAPH = "arrays.npz", "graph.onnx"
RUNS = 3


def peak_memory(run: Path, workload: Workload, task: Task, batch: int, backend: str, threads: int) -> float | None:
    """Returns the peak of a backend's resident memory in MB: weights, inputs and activations, without the libraries.

    The first run does not count, in which a compiler works. None on systems without /proc.

    Args:
        run: The folder of the run, for PyTorch.
        workload: Its graphs and inputs.
        task: The task.
        batch: The batch size.
        backend: The backend.
        threads: Its threads.
    """
    if not Path("/proc/self/clear_refs").exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / ARRAYS, **workload.case(task, batch).inputs)
        (Path(folder) / GRAPH).write_bytes(workload.files[task])
        command = [sys.executable, __file__, str(run.resolve()), folder, task, backend, str(threads)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def status(key: str) -> int:
    """Returns an entry of this process's memory in bytes: VmRSS now, or VmHWM, the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def measure_onnx(folder: Path, threads: int) -> int:
    """Returns the peak of ONNX Runtime in bytes."""
    from vaezoo.runtime.ort_session import open_session, require_runtime

    require_runtime()
    before = status("VmRSS")
    inputs = dict(np.load(folder / ARRAYS))
    session = open_session((folder / GRAPH).read_bytes(), threads=threads)
    return peak_of(lambda: session.run(None, inputs)) - before


def measure_native(run: Path, folder: Path, task: Task, backend: str, threads: int) -> int:
    """Returns the peak of a backend of PyTorch in bytes."""
    from vaezoo.bench.backends import BenchConfig
    from vaezoo.bench.native import native_modules, native_run, torch_settings
    from vaezoo.pretrained import load

    if backend == "compile":
        importlib.import_module("torch._inductor.compile_fx")  # a library too
    vae = load(run).vae.eval()
    with torch_settings(BenchConfig("cpu", threads)):
        module = native_modules(vae, task, "cpu")[backend]
        weights = sum(parameter.nbytes for parameter in module.parameters())  # reading them loads further libraries
        before = status("VmRSS") - weights
        inputs = dict(np.load(folder / ARRAYS))
        call = native_run(module, list(inputs.values()), "device", "cpu", backend == "channels-last")
        return peak_of(call) - before


def peak_of(call: Callable[[], object]) -> int:
    """Runs a backend and returns the peak of the resident memory in bytes, from the second run on."""
    call()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    for _ in range(RUNS):
        call()
    return status("VmHWM")


def main(run: str, folder: str, task: Task, backend: str, threads: str) -> None:
    """Prints the peak in MB."""
    if backend.startswith("ort"):
        peak = measure_onnx(Path(folder), int(threads))
    else:
        peak = measure_native(Path(run), Path(folder), task, backend, int(threads))
    print(peak / 1e6)


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]
